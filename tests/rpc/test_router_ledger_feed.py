"""The feed brings every ended attempt to the ledger, whatever the ledger does; over both transports."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from gen.rpc import Transport
from gen.weir.ledger.v1 import Entry
from gen.weir.ledger.v1.service import LedgerClient
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.inprocess import InProcessTransport
from meshkit.serving import Mount
from meshkit.telemetry import RpcMetrics
from services.router.adapters.ledger_feed import LedgerFeed
from services.router.adapters.spool import Spool
from services.router.adapters.spools import Spools
from services.router.adopt_spools import AdoptSpools, aborted
from services.router.spool_settings import FeedSettings, SpoolSettings
from tests.fakes.spool_ledger import FakeLedger, begun, ended, quiet, spools

FAST = FeedSettings(
    flush_delay_ms=1, retry_min_ms=1, retry_max_ms=20, ack_timeout_s=0.3, tend_interval_s=0.02,
    max_batch_records=16, flush_records=8,
)  # fmt: skip
SMALL = SpoolSettings(segment_bytes=4_096, max_unsent_bytes=1_000_000, max_entries_in_memory=20)


class Server:
    """A real gRPC server of the fake ledger that can be stopped and started on its port."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Serves; the first start picks a port."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        mount = Mount(mesh_codec(), RpcMetrics(CollectorRegistry()), quiet())
        server.add_generic_rpc_handlers((mount.handlers(self._ledger),))
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Cuts every stream."""
        if self._server is not None:
            await self._server.stop(None)


class Bench:
    """One router's attempt log, its feed, and the ledger it talks to."""

    def __init__(self, folder: Path, ledger: FakeLedger, transport: Transport) -> None:
        self.ledger = ledger
        self.spools: Spools = spools(folder, SMALL)
        self.spool: Spool = self.spools.open()
        jitter = Random(1)  # noqa: S311 - nothing secret
        self.feed = LedgerFeed(
            LedgerClient(transport), FAST, mesh_codec(), self.spools.quarantine, quiet(), jitter
        )
        self.expected: list[Entry] = []

    def attempts(self, count: int) -> None:
        """Runs attempts that end at once."""
        for _ in range(count):
            entry = begun(len(self.expected))
            self.spool.begin(entry)
            self.expected.append(ended(entry))
            self.spool.end(self.expected[-1])

    async def until_acknowledged(self) -> None:
        """Waits for the last acknowledgement; then the ledger has exactly what was expected."""
        await self.ledger.until(lambda: self.spool.unacked == 0)
        assert sorted(self.ledger.rows) == sorted((entry.begun_at, entry.entry_id) for entry in self.expected)
        assert all(self.ledger.rows[entry.begun_at, entry.entry_id] == entry for entry in self.expected)


@pytest.fixture(params=["in_process", "channel"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench whose feed is not started yet; everything is released at the end."""
    ledger = FakeLedger()
    async with AsyncExitStack() as exits:
        transport: Any = InProcessTransport(ledger, quiet())
        if request.param == "channel":
            server = Server(ledger)
            await server.start()
            exits.push_async_callback(server.stop)
            channel = await exits.enter_async_context(open_channel(f"127.0.0.1:{server.port}"))
            transport = ChannelTransport(channel, mesh_codec())
        made = Bench(tmp_path / "spool", ledger, transport)
        exits.callback(made.spools.close)
        yield made
        await made.feed.stop(timedelta(seconds=5))


async def test_entries_arrive_once_in_batches(bench: Bench) -> None:
    """Five hundred entries arrive, none twice, in far fewer batches; what lay in the spool comes first."""
    bench.attempts(300)
    await bench.feed.start(bench.spool)
    bench.attempts(200)
    await bench.until_acknowledged()
    assert set(bench.ledger.sent.values()) == {1}
    assert len(bench.ledger.batches) < 80
    assert max(bench.ledger.batches) <= FAST.max_batch_records


async def test_a_lone_entry_leaves_after_the_flush_delay(bench: Bench) -> None:
    """An entry that finds no company is sent all the same."""
    await bench.feed.start(bench.spool)
    for _ in range(3):
        bench.attempts(1)
        await bench.until_acknowledged()


async def test_nothing_is_lost_while_the_ledger_is_down(bench: Bench) -> None:
    """The feed tries again until the ledger answers; the entries waited on disk."""
    bench.ledger.down = True
    await bench.feed.start(bench.spool)
    bench.attempts(150)
    await bench.ledger.until(lambda: bench.ledger.streams >= 3)
    assert bench.ledger.rows == {}
    assert len(bench.spool._ring) <= SMALL.max_entries_in_memory
    bench.attempts(50)
    bench.ledger.down = False
    await bench.until_acknowledged()


async def test_a_stream_broken_before_the_acknowledgement_is_sent_again(bench: Bench) -> None:
    """What was committed and not acknowledged is sent again; the ledger knows it by its key."""
    bench.ledger.lose_acks = 3
    await bench.feed.start(bench.spool)
    bench.attempts(100)
    await bench.until_acknowledged()
    assert max(bench.ledger.sent.values()) >= 2


async def test_a_stale_acknowledgement_changes_nothing(bench: Bench) -> None:
    """An acknowledgement lower than one before is not taken for more."""
    bench.ledger.stale_acks = True
    await bench.feed.start(bench.spool)
    bench.attempts(200)
    await bench.until_acknowledged()
    assert set(bench.ledger.sent.values()) == {1}


async def test_batches_in_flight_are_bounded(bench: Bench) -> None:
    """A ledger that commits slowly is not sent more than the limit."""
    bench.ledger.withhold = asyncio.Event()
    await bench.feed.start(bench.spool)
    bench.attempts(400)
    await bench.ledger.until(lambda: len(bench.ledger.batches) >= 1)
    assert len(bench.feed._stream.in_flight) <= FAST.max_in_flight_batches
    assert bench.spool.unacked == 400
    bench.ledger.withhold.set()
    await bench.until_acknowledged()


async def test_a_silent_ledger_is_given_up(bench: Bench) -> None:
    """Without an acknowledgement in time the stream is begun anew."""
    bench.ledger.withhold = asyncio.Event()
    await bench.feed.start(bench.spool)
    bench.attempts(10)
    await bench.ledger.until(lambda: bench.ledger.streams >= 2)
    bench.ledger.withhold.set()
    await bench.until_acknowledged()


@pytest.mark.parametrize("named", [True, False])
async def test_a_refused_entry_is_set_aside_and_the_rest_goes_on(bench: Bench, *, named: bool) -> None:
    """Whether or not the ledger names it, the poison ends in the quarantine file, and all others in the ledger."""
    bench.attempts(60)
    poison = [bench.expected.pop(place) for place in (40, 7)]
    (bench.ledger.poison if named else bench.ledger.mute_poison).update(entry.entry_id for entry in poison)
    await bench.feed.start(bench.spool)
    await bench.until_acknowledged()
    lines = [json.loads(line) for line in bench.spools.quarantine.path.read_text().splitlines()]
    kept = [mesh_codec().decode(Entry, b64decode(line["data"])) for line in lines]
    assert sorted(entry.entry_id for entry in kept) == sorted(entry.entry_id for entry in poison)
    bench.attempts(20)
    await bench.until_acknowledged()


async def test_stop_sends_what_is_left(bench: Bench) -> None:
    """A graceful stop ends with everything acknowledged, and the spool's folder gone."""
    await bench.feed.start(bench.spool)
    bench.attempts(100)
    assert await bench.feed.stop(timedelta(seconds=10))
    assert len(bench.ledger.rows) == 100
    bench.spools.close()
    assert not bench.spool._owned.path.exists()


async def test_stop_keeps_to_its_limit(bench: Bench, tmp_path: Path) -> None:
    """With the ledger down it returns in time, and the next life finds the entries."""
    bench.ledger.down = True
    await bench.feed.start(bench.spool)
    bench.attempts(10)
    async with asyncio.timeout(5):
        assert not await bench.feed.stop(timedelta(milliseconds=50))
    bench.spools.close()
    after = spools(tmp_path / "spool", SMALL)
    found = after.claim()
    assert found is not None
    assert [item.entry for item in found.read(found.acked, 100)] == bench.expected
    after.close()


async def test_adoption_aborts_what_never_ended_and_sends_all(bench: Bench, tmp_path: Path) -> None:
    """A dead worker's ended entries arrive as they are, its open ones as aborted; then its folder is gone."""
    dead = spools(tmp_path / "spool", SMALL)
    lost = dead.open()
    entries = [begun(number) for number in range(50)]
    for entry in entries:
        lost.begin(entry)
    for entry in entries[:30]:
        lost.end(ended(entry))
    lost.close()
    await bench.feed.start(bench.spool)
    adopt = AdoptSpools(bench.spools, bench.feed, timedelta(milliseconds=20), quiet())
    await adopt.start()
    await bench.ledger.until(lambda: not lost._owned.path.exists())
    await adopt.stop()
    dead.close()
    bench.expected = [ended(entry) for entry in entries[:30]] + [aborted(entry) for entry in entries[30:]]
    await bench.until_acknowledged()


async def test_a_restarted_server_gets_the_rest(tmp_path: Path) -> None:
    """The ledger's process goes away in the middle and comes back on its port: nothing is lost, nothing doubled."""
    ledger = FakeLedger()
    server = Server(ledger)
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}") as channel:
        bench = Bench(tmp_path / "spool", ledger, ChannelTransport(channel, mesh_codec()))
        await bench.feed.start(bench.spool)
        for _ in range(3):
            bench.attempts(100)
            await ledger.until(lambda: len(ledger.rows) > len(bench.expected) - 100)
            await server.stop()
            bench.attempts(100)
            await server.start()
        await bench.until_acknowledged()
        await bench.feed.stop(timedelta(seconds=1))
        bench.spools.close()
    await server.stop()
