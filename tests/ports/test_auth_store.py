"""KeyStore and KeyFeed: one suite over the fakes and over PostgreSQL."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import psycopg
import pytest

from gen.weir.auth.v1 import Key
from meshkit.errors import UpstreamError
from meshkit.postgres import migrate, open_pool
from meshkit.tokens import mint
from services.auth.adapters.postgres import SCHEMA, PostgresKeyFeed, PostgresKeyStore, migrations
from services.auth.ports import KeyFeed, KeyIdTaken, KeyStore
from tests.fakes.auth import MOMENT, FakeKeyFeed, FakeKeyStore, key_of, revoked

_TIMEOUT = timedelta(seconds=5)
_SOON = timedelta(seconds=10)


class _Bench(Protocol):
    """One store, and what else can be done to it."""

    @property
    def store(self) -> KeyStore:
        """The store itself."""

    async def feed(self) -> KeyFeed:
        """One more follower of the store."""

    async def revoke(self, key_id: str) -> None:
        """Revokes at MOMENT: what an administrator does by hand."""

    async def limit(self, key_id: str, models: list[str], targets: list[str]) -> None:
        """Changes what the key may use, by hand too."""


class _FakeBench:
    def __init__(self) -> None:
        self.store = FakeKeyStore()

    async def feed(self) -> KeyFeed:
        return FakeKeyFeed(self.store)

    async def revoke(self, key_id: str) -> None:
        key = await self.store.find(key_id)
        assert key is not None
        self.store.put(revoked(key))

    async def limit(self, key_id: str, models: list[str], targets: list[str]) -> None:
        key = await self.store.find(key_id)
        assert key is not None
        self.store.put(replace(key, models=models, targets=targets))


class _PostgresBench:
    def __init__(self, dsn: str, exits: AsyncExitStack) -> None:
        self._dsn = dsn
        self._exits = exits
        pool = open_pool(dsn, name="test", checkout_timeout=_TIMEOUT)
        exits.push_async_callback(pool.close)
        self.pool = pool
        self.store = PostgresKeyStore(pool, _TIMEOUT)

    async def feed(self) -> KeyFeed:
        feed = PostgresKeyFeed(self._dsn, _TIMEOUT, _TIMEOUT)
        self._exits.push_async_callback(feed.close)
        return feed

    async def revoke(self, key_id: str) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn) as connection:
            await connection.execute("UPDATE auth.key SET revoked_at = %s WHERE id = %s", (MOMENT, key_id))

    async def limit(self, key_id: str, models: list[str], targets: list[str]) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn) as connection:
            await connection.execute(
                "UPDATE auth.key SET models = %s, targets = %s WHERE id = %s", (models, targets, key_id)
            )


@pytest.fixture(params=["fake", "postgres"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[_Bench]:
    if request.param == "fake":
        yield _FakeBench()
        return
    dsn = request.getfixturevalue("postgres_dsn")
    await migrate(dsn, SCHEMA, migrations())
    async with AsyncExitStack() as exits:
        real = _PostgresBench(dsn, exits)
        await real.pool.open()
        yield real


def _key() -> Key:
    return key_of(mint(secrets.token_bytes))


async def _added(store: KeyStore, count: int) -> list[Key]:
    keys = [_key() for _ in range(count)]
    for key in keys:
        await store.add(key)
    return keys


async def test_a_key_is_found_as_it_was_added(bench: _Bench) -> None:
    """Every field, times in UTC to the microsecond, patterns in their order."""
    key = key_of(
        mint(secrets.token_bytes),
        expires_at=MOMENT + timedelta(microseconds=1),
        models=["z*", "a\"',{}\\?", "NULL", "z*"],
        targets=["[!a]"],
    )
    key.label = "Zoë's 日本 key; DROP TABLE"
    await bench.store.add(key)
    found = await bench.store.find(key.id)
    assert found == key
    assert found is not None
    assert found.created_at is not None
    assert found.created_at.utcoffset() == timedelta(0)


async def test_an_unknown_key_is_none(bench: _Bench) -> None:
    """No key, no error."""
    await _added(bench.store, 1)
    assert await bench.store.find("aaaaaaaaaaaa") is None


async def test_an_id_is_given_once(bench: _Bench) -> None:
    """A second key with the id is refused and changes nothing."""
    (key,) = await _added(bench.store, 1)
    feed = await bench.feed()
    before = (await feed.read(0)).version
    other = _key()
    other.id = key.id
    with pytest.raises(KeyIdTaken):
        await bench.store.add(other)
    assert await bench.store.find(key.id) == key
    assert (await feed.read(0)).version == before


async def test_an_empty_store_has_a_version(bench: _Bench) -> None:
    """So that a watcher of an empty key set has something to resume after."""
    read = await (await bench.feed()).read(0)
    assert read.version > 0
    assert list(read.changes) == []


async def test_a_reading_of_all_has_every_key_in_the_order_of_change(bench: _Bench) -> None:
    """Versions rise, and the version of the whole is that of the last change."""
    keys = await _added(bench.store, 5)
    read = await (await bench.feed()).read(0)
    assert [change.key for change in read.changes] == keys
    versions = [change.version for change in read.changes]
    assert versions == sorted(set(versions))
    assert read.version == versions[-1]


async def test_a_reading_of_news_has_what_changed_since(bench: _Bench) -> None:
    """A revoked key moves to the end with a version of its own; nothing new is an empty reading."""
    keys = await _added(bench.store, 3)
    feed = await bench.feed()
    before = (await feed.read(0)).version
    await bench.revoke(keys[0].id)
    read = await feed.read(before)
    assert [(change.key.id, change.key.revoked_at) for change in read.changes] == [(keys[0].id, MOMENT)]
    assert read.version == read.changes[0].version > before
    assert list((await feed.read(read.version)).changes) == []


async def test_permissions_are_a_change_like_any_other(bench: _Bench) -> None:
    """A key that is limited by hand is found and read with its patterns."""
    (key,) = await _added(bench.store, 1)
    feed = await bench.feed()
    before = (await feed.read(0)).version
    await bench.limit(key.id, ["gpt-*"], ["local", "cloud"])
    (change,) = (await feed.read(before)).changes
    assert (change.key.models, change.key.targets) == (["gpt-*"], ["local", "cloud"])
    assert await bench.store.find(key.id) == change.key


async def test_concurrent_changes_become_visible_in_order(bench: _Bench) -> None:
    """A follower that reads while many write sees each key exactly once, whatever the interleaving."""
    feed = await bench.feed()
    version = (await feed.read(0)).version
    writers = [asyncio.create_task(_added(bench.store, 10)) for _ in range(8)]
    seen: list[str] = []
    done = False
    while not done:
        done = all(writer.done() for writer in writers)
        read = await feed.read(version)
        assert all(change.version > version for change in read.changes)
        seen += [change.key.id for change in read.changes]
        version = read.version
        await asyncio.sleep(0)
    written = [key.id for keys in await asyncio.gather(*writers) for key in keys]
    assert sorted(seen) == sorted(written)


async def test_a_change_ends_the_wait_of_every_feed(bench: _Bench) -> None:
    """Each follower is told, whoever made the change."""
    feeds = [await bench.feed() for _ in range(3)]
    for feed in feeds:
        await feed.read(0)
    waits = [asyncio.create_task(feed.wait(timedelta(minutes=5))) for feed in feeds]
    (key,) = await _added(bench.store, 1)
    async with asyncio.timeout(_SOON.total_seconds()):
        await asyncio.gather(*waits)
    assert await _ids(feeds) == [[key.id]] * 3


async def test_a_change_between_reading_and_waiting_is_not_slept_through(bench: _Bench) -> None:
    """The wait returns at once."""
    feed = await bench.feed()
    version = (await feed.read(0)).version
    (key,) = await _added(bench.store, 1)
    async with asyncio.timeout(_SOON.total_seconds()):
        while not (read := await feed.read(version)).changes:
            await feed.wait(timedelta(minutes=5))
    assert read.changes[0].key.id == key.id


async def test_a_wait_without_a_change_ends_by_itself(bench: _Bench) -> None:
    """After at most the time given."""
    feed = await bench.feed()
    await feed.read(0)
    async with asyncio.timeout(_SOON.total_seconds()):
        await feed.wait(timedelta(milliseconds=20))


async def _ids(feeds: Sequence[KeyFeed]) -> list[list[str]]:
    return [[change.key.id for change in (await feed.read(0)).changes] for feed in feeds]


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[psycopg.AsyncConnection]:
    await migrate(postgres_dsn, SCHEMA, migrations())
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


async def test_a_later_change_waits_for_an_earlier_one(
    postgres_dsn: str, database: psycopg.AsyncConnection
) -> None:
    """While a change is not committed no higher version becomes visible: a follower cannot step over it."""
    async with AsyncExitStack() as exits:
        bench = _PostgresBench(postgres_dsn, exits)
        await bench.pool.open()
        first, second = (await _added(bench.store, 2)), _key()
        feed = await bench.feed()
        version = (await feed.read(0)).version
        async with database.transaction():
            await database.execute("UPDATE auth.key SET label = 'slow' WHERE id = %s", (first[0].id,))
            adding = asyncio.create_task(bench.store.add(second))
            await _until_blocked(postgres_dsn)
            assert (await feed.read(version)).version == version
        await adding
        read = await feed.read(version)
        assert [change.key.id for change in read.changes] == [first[0].id, second.id]


async def _until_blocked(dsn: str) -> None:
    """Returns once some session waits for a row that another holds."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(10), await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watcher:
        while (await (await watcher.execute(waiting)).fetchone()) == (0,):  # noqa: ASYNC110 - PostgreSQL signals nobody
            await asyncio.sleep(0.01)


async def test_a_feed_survives_the_loss_of_its_connection(
    postgres_dsn: str, database: psycopg.AsyncConnection
) -> None:
    """The wait ends, and the next reading connects anew."""
    feed = PostgresKeyFeed(postgres_dsn, _TIMEOUT, _TIMEOUT)
    before = await feed.read(0)
    waiting = asyncio.create_task(feed.wait(timedelta(minutes=5)))
    await asyncio.sleep(0)
    await database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'auth key feed'"
    )
    async with asyncio.timeout(_SOON.total_seconds()):
        await waiting
    assert await feed.read(0) == before
    await feed.close()


@pytest.mark.parametrize("use", ["add", "find", "read"])
async def test_an_unreachable_store_is_an_upstream_error(use: str) -> None:
    """Said within the timeout, without the DSN."""
    dsn = "host=127.0.0.1 port=1 password=hunter2 dbname=weir"
    limit = timedelta(seconds=0.3)
    pool = open_pool(dsn, name="test", checkout_timeout=limit)
    await pool.open(wait=False)
    store, feed = PostgresKeyStore(pool, limit), PostgresKeyFeed(dsn, limit, limit)
    uses: dict[str, Callable[[], Awaitable[object]]] = {
        "add": lambda: store.add(_key()),
        "find": lambda: store.find("a"),
        "read": lambda: feed.read(0),
    }
    try:
        async with asyncio.timeout(_SOON.total_seconds()):
            with pytest.raises(UpstreamError) as refused:
                await uses[use]()
    finally:
        await pool.close()
    assert refused.value.message in {"the key store cannot be reached", "the key store does not answer"}


async def test_a_frozen_store_is_given_up_at_the_limit(tmp_path: Path) -> None:
    """A server that takes the connection and says nothing holds nobody longer than the time given."""
    connections: list[asyncio.StreamWriter] = []
    frozen = await asyncio.start_unix_server(
        lambda _, writer: connections.append(writer), tmp_path / ".s.PGSQL.5432"
    )
    limit = timedelta(seconds=0.2)
    feed = PostgresKeyFeed(f"host={tmp_path} dbname=weir user=weir", limit, limit)
    async with frozen:
        async with asyncio.timeout(2):
            with pytest.raises(UpstreamError, match="does not answer"):
                await feed.read(1)
        for connection in connections:
            connection.close()


async def test_a_statement_that_hangs_is_given_up_at_the_limit(
    postgres_dsn: str, database: psycopg.AsyncConnection
) -> None:
    """The feed lets go of its connection and reads again over another once the hindrance is gone."""
    feed = PostgresKeyFeed(postgres_dsn, timedelta(seconds=0.2), _TIMEOUT)
    before = await feed.read(0)
    async with database.transaction():
        await database.execute("LOCK TABLE auth.key IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(UpstreamError, match="does not answer"):
            await feed.read(before.version)
    assert await feed.read(0) == before
    await feed.close()
