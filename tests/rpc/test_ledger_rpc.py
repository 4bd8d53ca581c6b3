"""The ledger as its callers meet it: a real server, the generated client, a real PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from prometheus_client import CollectorRegistry
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from gen.weir.ledger.v1 import Entry, Outcome, RecordRequest, RecordResponse, UsageRequest, UsageRow
from gen.weir.ledger.v1.service import LedgerClient
from gen.weir.type.v1 import Locality, Principal, Target, Usage
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import (
    Forbidden,
    InvalidRequest,
    KeyInvalid,
    KeyMissing,
    KeyRevoked,
    LedgerUnavailable,
    UpstreamError,
)
from meshkit.inprocess import InProcessTransport
from meshkit.server import MeshServer
from meshkit.settings import Listen, SettingsError
from meshkit.telemetry import Logger
from meshkit.wire_time import NanoDatetime
from services.ledger.bootstrap import build
from services.ledger.settings import LedgerBlock, LedgerSettings
from tests.fakes.ledger import an_entry
from tests.fakes.ledger_auth import ADMIN, CHATTER, READER, STRANGER, FakeAuth, bearer

DRAIN = timedelta(seconds=30)
SEEN = timedelta(seconds=10)
"""How long anything may take before a test gives up."""


@dataclass
class Running:
    """A ledger and a client of it."""

    client: LedgerClient
    auth: FakeAuth
    server: MeshServer
    registry: CollectorRegistry


@asynccontextmanager
async def _ledger(dsn: str, folder: Path) -> AsyncIterator[Running]:
    block = LedgerBlock(checkout_timeout_s=1)
    registry, log, auth = CollectorRegistry(), Logger("ledger"), FakeAuth()
    asks_auth = InProcessTransport(auth, log, caller="ledger")
    service = build(LedgerSettings(postgres_dsn=dsn, ledger=block), asks_auth, registry, log)
    address = f"unix:{folder}/ledger.sock"
    server = MeshServer("ledger", service, Listen(address, "127.0.0.1", 0, DRAIN), registry, log)
    await server.start()
    channel = open_channel(address)
    try:
        yield Running(LedgerClient(ChannelTransport(channel, mesh_codec())), auth, server, registry)
    finally:
        await channel.close()
        await server.stop()


@pytest.fixture
async def ledger(postgres_dsn: str, tmp_path: Path) -> AsyncIterator[Running]:
    """A ledger on an empty database."""
    async with _ledger(postgres_dsn, tmp_path) as running:
        yield running


def _entry(**changes: object) -> Entry:
    return an_entry(**{"begun_at": datetime.now(UTC) - timedelta(seconds=1), **changes})


class Sender:
    """The sending side of one Record stream."""

    def __init__(self, client: LedgerClient) -> None:
        self._batches: asyncio.Queue[RecordRequest | None] = asyncio.Queue()
        self._answers = client.record(self._requests())
        self._sequence = 0

    async def send(self, entries: list[Entry]) -> int:
        """Sends the next batch and returns how far the ledger has acknowledged."""
        self._sequence += 1
        self._batches.put_nowait(RecordRequest(sequence=self._sequence, entries=entries))
        async with asyncio.timeout(SEEN.total_seconds()):
            answer: RecordResponse = await anext(self._answers)
        return answer.acked_through

    async def end(self) -> list[RecordResponse]:
        """Ends the stream and returns whatever still comes."""
        self._batches.put_nowait(None)
        return [answer async for answer in self._answers]

    async def _requests(self) -> AsyncGenerator[RecordRequest, None]:
        while (batch := await self._batches.get()) is not None:
            yield batch


async def _rows(client: LedgerClient) -> list[UsageRow]:
    return (await client.usage(UsageRequest(), metadata=bearer(ADMIN))).rows


async def _attempts(client: LedgerClient) -> int:
    return sum(row.attempts for row in await _rows(client))


async def test_batches_are_acknowledged_one_by_one_and_counted(ledger: Running) -> None:
    """A stream of three batches; the report has what they used and what it cost."""
    sender = Sender(ledger.client)
    usage = Usage(input_tokens=1_000, output_tokens=100, cached_input_tokens=400)
    assert await sender.send([_entry(usage=usage), _entry(usage=usage)]) == 1
    assert await sender.send([]) == 2
    assert await sender.send([_entry(usage=usage, outcome=Outcome.FAILED)]) == 3
    assert await sender.end() == []
    first, second = await _rows(ledger.client)
    assert (first.outcome, first.attempts, first.cost_nano_usd) == (Outcome.OK, 2, 2 * 180_000)
    assert (second.outcome, second.attempts, second.cost_nano_usd) == (Outcome.FAILED, 1, 180_000)
    assert first.usage == Usage(input_tokens=2_000, output_tokens=200, cached_input_tokens=800)


async def test_local_sandbox_and_unknown_models(ledger: Running) -> None:
    """Local and sandbox are free by an explicit price, an unknown model is unpriced, all are counted."""
    targets = [
        Target(name="local", locality=Locality.LOCAL, provider="triton", model="smollm2"),
        Target(name="sandbox", locality=Locality.CLOUD, provider="any", model="any", sandbox=True),
        Target(name="unknown", locality=Locality.CLOUD, provider="openai", model="gpt-99"),
    ]
    assert await Sender(ledger.client).send([_entry(target=target) for target in targets]) == 1
    unpriced = {row.target: row.unpriced_attempts for row in await _rows(ledger.client)}
    assert unpriced == {"local": 0, "sandbox": 0, "unknown": 1}
    assert [row.cost_nano_usd for row in await _rows(ledger.client)] == [0, 0, 0]


async def test_a_batch_sent_again_is_acknowledged_and_not_doubled(ledger: Running) -> None:
    """A sender that lost the acknowledgement repeats itself on a new stream."""
    entries = [_entry() for _ in range(20)]
    for _ in range(3):
        assert await Sender(ledger.client).send(entries) == 1
    assert await _attempts(ledger.client) == 20
    assert ledger.registry.get_sample_value("weir_ledger_entries_total", {"result": "written"}) == 20
    assert ledger.registry.get_sample_value("weir_ledger_entries_total", {"result": "known"}) == 40


async def test_a_sender_gets_past_an_unfit_entry(ledger: Running) -> None:
    """The error names the entry across the wire; without it the rest is taken. What the spool's feed relies on."""
    entries = [_entry() for _ in range(5)]
    entries[3].outcome = Outcome.UNSPECIFIED
    with pytest.raises(InvalidRequest) as refused:
        await Sender(ledger.client).send(entries)
    assert refused.value.param == "entries[3].outcome"
    unfit = bytes.fromhex(refused.value.details["entry_id"])
    assert unfit == entries[3].entry_id
    rest = [entry for entry in entries if entry.entry_id != unfit]
    assert await Sender(ledger.client).send(rest) == 1
    assert await _attempts(ledger.client) == 4


async def test_a_finer_clock_is_no_trouble(ledger: Running) -> None:
    """Nanoseconds in a sender's timestamp are cut to microseconds, the same each time."""
    entry = _entry(begun_at=NanoDatetime.extend(datetime.now(UTC), 999))
    for _ in range(2):
        assert await Sender(ledger.client).send([entry]) == 1
    assert await _attempts(ledger.client) == 1


async def test_a_gap_is_refused(ledger: Running) -> None:
    """The field is named, no entry is."""
    sender = Sender(ledger.client)
    sender._sequence = 5
    with pytest.raises(InvalidRequest) as refused:
        await sender.send([_entry()])
    assert refused.value.param == "sequence"
    assert "entry_id" not in refused.value.details


async def test_many_senders_at_once(ledger: Running) -> None:
    """Each stream has its own numbers; nothing is lost among them."""

    async def send(batches: int) -> int:
        sender = Sender(ledger.client)
        return [await sender.send([_entry() for _ in range(30)]) for _ in range(batches)][-1]

    assert await asyncio.gather(*(send(4) for _ in range(6))) == [4] * 6
    assert await _attempts(ledger.client) == 6 * 4 * 30


async def test_postgres_breaks_in_mid_batch(ledger: Running, postgres_dsn: str) -> None:
    """The connection dies while the batch is being written: no acknowledgement, and sending again completes it."""
    entries = [_entry() for _ in range(10)]
    assert await Sender(ledger.client).send(entries[:1]) == 1
    with psycopg.connect(postgres_dsn) as other, psycopg.connect(postgres_dsn, autocommit=True) as killer:
        other.execute("LOCK TABLE ledger.entry IN ACCESS EXCLUSIVE MODE")
        sending = asyncio.create_task(Sender(ledger.client).send(entries))
        await _terminate_waiting(killer)
        with pytest.raises(LedgerUnavailable):
            await sending
    assert await Sender(ledger.client).send(entries) == 1
    assert await _attempts(ledger.client) == 10


async def _terminate_waiting(connection: psycopg.Connection) -> None:
    """Ends the one backend that waits for a lock, once there is one."""
    async with asyncio.timeout(SEEN.total_seconds()):
        ended: list[tuple[int]] = []
        while not ended:
            await asyncio.sleep(0)  # the ledger runs in this loop too
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ).fetchall()


async def test_postgres_goes_away_and_comes_back(ledger: Running, postgres_dsn: str) -> None:
    """While it takes no connection both methods say so; once it does, an open client gets through by itself."""
    entries = [_entry() for _ in range(10)]
    sender = Sender(ledger.client)
    assert await sender.send(entries[:5]) == 1
    with _closed(postgres_dsn):
        with pytest.raises(LedgerUnavailable):
            await sender.send(entries)
        with pytest.raises(LedgerUnavailable):
            await _rows(ledger.client)
    assert await _until_taken(ledger.client, entries) == 1
    assert await _attempts(ledger.client) == 10


@contextmanager
def _closed(dsn: str) -> Iterator[None]:
    """Ends the connections to a database, which takes no new one meanwhile."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    allow = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}").format
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as server:
        server.execute(allow(sql.Identifier(name), sql.SQL("false")))
        server.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
        yield
        server.execute(allow(sql.Identifier(name), sql.SQL("true")))


async def _until_taken(client: LedgerClient, entries: list[Entry]) -> int:
    async with asyncio.timeout(2 * SEEN.total_seconds()):
        while True:
            try:
                return await Sender(client).send(entries)
            except LedgerUnavailable:
                continue


async def test_a_stop_does_not_wait_for_idle_streams(postgres_dsn: str, tmp_path: Path) -> None:
    """A sender keeps its stream open for ever: at a stop it is told to come again, long before the drain limit."""
    async with _ledger(postgres_dsn, tmp_path) as running:
        sender = Sender(running.client)
        assert await sender.send([_entry()]) == 1
        begun = time.monotonic()
        stopping = asyncio.create_task(running.server.stop())
        with pytest.raises(LedgerUnavailable):
            await sender.send([_entry()])
        await stopping
        assert time.monotonic() - begun < DRAIN.total_seconds() / 3


async def test_two_ledgers_share_one_database(postgres_dsn: str, tmp_path: Path) -> None:
    """They start together, take the same entries, and agree."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir(mode=0o700)
    entries = [_entry(begun_at=datetime.now(UTC) - timedelta(days=days)) for days in range(20)]
    async with _ledger(postgres_dsn, folders[0]) as one, _ledger(postgres_dsn, folders[1]) as two:
        assert await asyncio.gather(*(Sender(each.client).send(entries) for each in (one, two))) == [1, 1]
        assert await _attempts(one.client) == await _attempts(two.client) == 20


async def test_the_same_service_without_a_socket(postgres_dsn: str) -> None:
    """The compact topology: the generated client over the servicer in the same process."""
    registry, log = CollectorRegistry(), Logger("ledger")
    asks_auth = InProcessTransport(FakeAuth(), log, caller="ledger")
    service = build(LedgerSettings(postgres_dsn=postgres_dsn), asks_auth, registry, log)
    await service.start()
    try:
        client = LedgerClient(InProcessTransport(service.servicer, log))
        assert await Sender(client).send([_entry(), _entry()]) == 1
        with pytest.raises(InvalidRequest):
            await Sender(client).send([_entry(entry_id=b"short")])
        assert await _attempts(client) == 2
    finally:
        await service.stop()


async def test_a_reader_is_shown_its_own_team(ledger: Running) -> None:
    """The admin sees the other team too; several reports in a row ask Auth about each key once."""
    owners = [Principal(key_id=f"key-{team}", org="acme", team=team) for team in ("blue", "red")]
    assert await Sender(ledger.client).send([_entry(principal=owner) for owner in owners]) == 1
    for _ in range(2):
        own = (await ledger.client.usage(UsageRequest(), metadata=bearer(READER))).rows
        assert [row.principal for row in own] == owners[:1]
    assert len(await _rows(ledger.client)) == len(owners)
    assert ledger.auth.asked == 2


async def test_who_may_not_read_usage(ledger: Running) -> None:
    """No key, an unknown one, one without the scope, a revoked one, and Auth away: each its own error."""
    usage = ledger.client.usage
    ledger.auth.keys[READER.key_id].revoked_at = datetime.now(UTC)
    with pytest.raises(KeyMissing):
        await usage(UsageRequest())
    with pytest.raises(KeyInvalid):
        await usage(UsageRequest(), metadata=bearer(STRANGER))
    with pytest.raises(Forbidden, match="usage:read or admin"):
        await usage(UsageRequest(), metadata=bearer(CHATTER))
    with pytest.raises(KeyRevoked):
        await usage(UsageRequest(), metadata=bearer(READER))
    ledger.auth.away = True
    with pytest.raises(UpstreamError, match="auth does not answer"):
        await usage(UsageRequest(), metadata=bearer(ADMIN))


async def test_entries_are_taken_without_a_key(ledger: Running) -> None:
    """Record is the routers', whom their certificates name; Auth is not asked."""
    assert await Sender(ledger.client).send([_entry()]) == 1
    assert ledger.auth.asked == 0


async def test_malformed_bytes_are_refused(ledger: Running, tmp_path: Path) -> None:
    """Bytes that are no RecordRequest end the stream with INVALID_ARGUMENT; the ledger goes on."""

    async def garbage() -> AsyncIterator[bytes]:
        yield b"\xff\xff\xff"

    async with open_channel(f"unix:{tmp_path}/ledger.sock") as channel:
        call: Any = channel.stream_stream("/weir.ledger.v1.Ledger/Record")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in call(garbage()):
                pass
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await Sender(ledger.client).send([_entry()]) == 1


async def test_a_client_that_leaves_in_mid_stream_harms_nobody(ledger: Running) -> None:
    """Its call is cancelled; the next sender is served."""

    async def forever() -> AsyncIterator[RecordRequest]:
        yield RecordRequest(sequence=1, entries=[_entry()])
        await asyncio.Event().wait()

    async with aclosing(ledger.client.record(forever())) as answers:
        assert (await anext(answers)).acked_through == 1
    assert await Sender(ledger.client).send([_entry()]) == 1
    assert await _attempts(ledger.client) == 2


def test_a_ledger_without_a_database_does_not_start() -> None:
    """The key that is missing is named."""
    log = Logger("ledger")
    with pytest.raises(SettingsError, match="postgres_dsn"):
        build(LedgerSettings(), InProcessTransport(FakeAuth(), log), CollectorRegistry(), log)
