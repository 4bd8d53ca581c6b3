"""Auth as its callers see it: generated client, real server, real PostgreSQL; and inside the caller's process."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from gen.rpc import Metadata, Transport
from gen.weir.auth.v1 import AuthenticateRequest, CreateKeyRequest, Key, WatchKeysRequest, WatchKeysResponse
from gen.weir.auth.v1.service import AuthClient
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import InvalidRequest, KeyExpired, KeyInvalid, KeyRevoked, UpstreamError, WeirError
from meshkit.inprocess import InProcessTransport
from meshkit.server import MeshServer
from meshkit.settings import Listen
from meshkit.telemetry import Logger
from meshkit.tokens import Token, mint, parse
from services.auth.bootstrap import AuthService, build
from services.auth.settings import AuthBlock, AuthSettings
from tests.fakes.auth import token_of
from weirctl import postgres_server as postgres

_SOON_S = 10.0
_LONG_S = 40.0
"""The pool of connections backs off for up to half a minute."""
_BLOCK = AuthBlock(heartbeat_s=0.1, poll_s=0.05)


@dataclass
class _Auth:
    """One auth process's worth of Auth, and where it logs."""

    client: AuthClient
    service: AuthService
    log: Path
    admin: Metadata
    """With the first admin key."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: sockets' names are limited to 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="weir-auth-"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def _started(
    dsn: str, folder: Path, name: str, block: AuthBlock, *, in_process: bool
) -> AsyncGenerator[_Auth]:
    registry = CollectorRegistry()
    log_path = folder / f"{name}.log"
    async with AsyncExitStack() as exits:
        descriptor = os.open(log_path, os.O_CREAT | os.O_WRONLY)
        exits.callback(os.close, descriptor)
        log = Logger("auth", descriptor)
        service = build(AuthSettings(postgres_dsn=dsn, auth=block, home=folder), registry, log)
        transport: Transport
        if in_process:
            exits.push_async_callback(service.stop)
            await service.start()
            transport = InProcessTransport(service.servicer, log)
        else:
            address = f"unix:{folder}/{name}.sock"
            server = MeshServer("auth", service, Listen(address, "", 0, timedelta(seconds=30)), registry, log)
            await server.start()
            exits.push_async_callback(server.stop)
            channel = open_channel(address)
            exits.push_async_callback(channel.close)
            transport = ChannelTransport(channel, mesh_codec())
        key = (folder / "admin-key").read_text().strip()
        admin = (("authorization", f"Bearer {key}"),)
        yield _Auth(AuthClient(transport), service, log_path, admin)


@pytest.fixture(params=["separate", "compact"])
async def auth(request: pytest.FixtureRequest, postgres_dsn: str, folder: Path) -> AsyncIterator[_Auth]:
    in_process = request.param == "compact"
    async with _started(postgres_dsn, folder, "a", _BLOCK, in_process=in_process) as started:
        yield started


async def _next(events: AsyncIterator[WatchKeysResponse]) -> WatchKeysResponse:
    async with asyncio.timeout(_SOON_S):
        return await anext(events)


async def _next_change(events: AsyncIterator[WatchKeysResponse]) -> WatchKeysResponse:
    event = await _next(events)
    while event.heartbeat is not None:
        event = await _next(events)
    return event


def _watch(auth: _Auth, after_version: int = 0) -> aclosing[AsyncGenerator[WatchKeysResponse]]:
    return aclosing(auth.client.watch_keys(WatchKeysRequest(after_version=after_version)))


async def _create(auth: _Auth, *, expires_at: datetime | None = None) -> tuple[Key, Token]:
    request = CreateKeyRequest(org="acme", team="search", label="test", expires_at=expires_at)
    made = await auth.client.create_key(request, metadata=auth.admin)
    assert made.key is not None
    return made.key, parse(made.token)


async def _authenticate(auth: _Auth, token: Token) -> Key:
    request = AuthenticateRequest(key_id=token.key_id, secret_sha256=token.secret_sha256)
    key = (await auth.client.authenticate(request)).key
    assert key is not None
    return key


async def test_snapshot_then_change_then_heartbeat(auth: _Auth) -> None:
    """A watch from nothing; every key is as CreateKey answered it."""
    first, _ = await _create(auth)
    async with _watch(auth) as events:
        snapshot = await _next(events)
        assert snapshot.snapshot is not None
        if first not in snapshot.snapshot.keys:  # the watch was quicker than the notification
            assert (await _next_change(events)).changed == first
        second, _ = await _create(auth)
        change = await _next_change(events)
        assert change.changed == second
        assert change.version > snapshot.version
        heartbeat = await _next(events)
        assert heartbeat.heartbeat is not None
        assert heartbeat.version == change.version


async def test_a_watch_resumes_after_its_version(auth: _Auth) -> None:
    """The changes missed, and no snapshot."""
    async with _watch(auth) as events:
        version = (await _next(events)).version
    made = [(await _create(auth))[0] for _ in range(3)]
    async with _watch(auth, version) as events:
        assert [(await _next_change(events)).changed for _ in made] == made


async def test_a_key_made_by_another_auth_appears_within_a_second(
    auth: _Auth, postgres_dsn: str, folder: Path
) -> None:
    """Several replicas share one PostgreSQL; each tells its watchers of what the others did."""
    async with (
        _started(postgres_dsn, folder, "b", AuthBlock(), in_process=False) as other,
        _watch(auth) as events,
    ):
        await _next(events)
        for _ in range(3):
            begun = perf_counter()
            key, token = await _create(other)
            assert (await _next_change(events)).changed == key
            assert perf_counter() - begun < 1.0
            assert await _authenticate(auth, token) == key


async def test_a_key_revoked_in_the_database_is_a_change(auth: _Auth, postgres_dsn: str) -> None:
    """However it was done, every watcher hears of it, and the key is refused."""
    key, token = await _create(auth)
    async with _watch(auth) as events:
        await _next(events)
        async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
            await connection.execute("UPDATE auth.key SET revoked_at = now() WHERE id = %s", (key.id,))
        changed = (await _next_change(events)).changed
        while changed is None or changed.revoked_at is None:
            changed = (await _next_change(events)).changed
        assert changed.id == key.id
    with pytest.raises(KeyRevoked):
        await _authenticate(auth, token)


async def test_bad_keys_are_refused_by_name(auth: _Auth, postgres_dsn: str) -> None:
    """Unknown and wrong alike are invalid; an expired one is told apart."""
    key, token = await _create(auth, expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert await _authenticate(auth, token) == key
    for stranger in (token_of(1), Token(token.key_id, token_of(1).secret), Token("no such id", token.secret)):
        with pytest.raises(KeyInvalid):
            await _authenticate(auth, stranger)
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        await connection.execute("UPDATE auth.key SET expires_at = now()")
    with pytest.raises(KeyExpired):
        await _authenticate(auth, token)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (CreateKeyRequest(team="search"), "org"),
        (CreateKeyRequest(org="acme"), "team"),
        (CreateKeyRequest(org="acme", team="x" * 101), "team"),
        (CreateKeyRequest(org="a", team="b", expires_at=datetime(1999, 1, 1, tzinfo=UTC)), "expires_at"),
    ],
)
async def test_a_bad_request_names_its_field(auth: _Auth, request_: CreateKeyRequest, param: str) -> None:
    """The error's param crosses the wire."""
    with pytest.raises(InvalidRequest) as refused:
        await auth.client.create_key(request_, metadata=auth.admin)
    assert refused.value.param == param


async def test_no_secret_is_kept_logged_or_repeated(auth: _Auth, postgres_dsn: str) -> None:
    """Neither the database, nor the log, nor an error holds a secret, the unexpected error included."""
    _, token = await _create(auth)
    wrong = Token(token.key_id, mint(lambda count: b"\x05" * count).secret)
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        rows = await (await connection.execute("SELECT k::text FROM auth.key k")).fetchall()
        await connection.execute("ALTER TABLE auth.key RENAME TO hidden")
    with pytest.raises(WeirError) as refused:
        await auth.client.create_key(CreateKeyRequest(org="acme", team="search"), metadata=auth.admin)
    with pytest.raises(WeirError) as unknown:
        await _authenticate(auth, wrong)
    texts = (str(rows), auth.log.read_text(), str(refused.value), str(unknown.value))
    assert "acme" in texts[0]
    for secret in (token.secret, wrong.secret):
        assert not any(secret in text for text in texts)
    assert "weir_" not in "".join(texts)


async def test_a_stop_ends_watches_at_once(postgres_dsn: str, folder: Path) -> None:
    """The drain limit is for work that ends by itself; a watch is told to end."""
    begun = perf_counter()
    async with _started(postgres_dsn, folder, "a", _BLOCK, in_process=False) as auth, _watch(auth) as events:
        await _next(events)
        await auth.service.drain()
        async with asyncio.timeout(_SOON_S):
            assert [event.snapshot async for event in events if event.heartbeat is None] == []
    assert perf_counter() - begun < _SOON_S


async def test_an_outage_of_postgres_is_told_by_silence_and_survived(
    folder: Path, start_postgres: Callable[[postgres.PostgresFiles], "subprocess.Popen[bytes]"]
) -> None:
    """Killed: no heartbeat, UNAVAILABLE and no verdict on keys. Back: the same stream goes on, with what changed."""
    folder.chmod(0o711)  # noqa: ASYNC240 - at once, before anything waits
    files = postgres.prepare(folder, lambda _: None)
    servers = [start_postgres(files)]
    home = folder / "home"
    home.mkdir(mode=0o700)
    async with (
        _ended(servers),
        _started(postgres.dsn(files), home, "a", _BLOCK, in_process=False) as auth,
        _collected(auth) as events,
    ):
        _, token = await _create(auth)
        await _until(lambda: len(events) > 2)
        servers[0].kill()
        await asyncio.to_thread(servers[0].wait)
        live = auth.service._live
        await _until(lambda: live.age_s > 3 * _BLOCK.heartbeat_s)
        seen = len(events)
        with pytest.raises(UpstreamError):
            await _authenticate(auth, token)
        await _until(lambda: live.age_s > 10 * _BLOCK.heartbeat_s)
        assert len(events) == seen

        again = postgres.prepare(folder, lambda _: None)
        servers.append(await asyncio.to_thread(start_postgres, again))
        await _until(lambda: len(events) > seen)
        made = await _until_created(auth)
        await _until(lambda: made in [event.changed for event in events])
        assert await _authenticate(auth, token)
        versions = [event.version for event in events]
        assert versions == sorted(versions)


@asynccontextmanager
async def _ended(running: list["subprocess.Popen[bytes]"]) -> AsyncGenerator[None]:
    """Ends the last server started, before its folder goes."""
    try:
        yield
    finally:
        running[-1].send_signal(signal.SIGINT)
        await asyncio.to_thread(running[-1].wait)


async def _until_created(auth: _Auth) -> Key:
    """A new key, once the store takes it again."""
    async with asyncio.timeout(_LONG_S):
        while True:
            try:
                return (await _create(auth))[0]
            except UpstreamError:
                continue


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_SOON_S):
        while not condition():  # noqa: ASYNC110 - over state that signals nobody
            await asyncio.sleep(0.005)


@asynccontextmanager
async def _collected(auth: _Auth) -> AsyncGenerator[list[WatchKeysResponse]]:
    """The events of a watch as they come."""
    collected: list[WatchKeysResponse] = []

    async def collect() -> None:
        async for event in auth.client.watch_keys(WatchKeysRequest()):
            collected.append(event)  # noqa: PERF401 - the list grows while others look at it

    task = asyncio.create_task(collect())
    try:
        yield collected
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
