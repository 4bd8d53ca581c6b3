"""RateStore: one suite over the fake and over PostgreSQL; and what PostgreSQL alone can get wrong."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import psycopg
import pytest

from meshkit.errors import UpstreamError
from meshkit.postgres import migrate, open_pool
from services.auth.adapters.postgres import SCHEMA, migrations
from services.auth.adapters.postgres_rates import PostgresRates
from services.auth.domain.rate_lease import Demand, lease
from services.auth.domain.rate_window import Holding, Rule, Window
from services.auth.ports import RateBook, RateStore
from tests.fakes.auth_rates import FakeRates

_TIMEOUT = timedelta(seconds=10)
_LATELY = timedelta(seconds=10)
_SOON_S = 10.0
_RULE: Final = Rule(total=100, slides=True, good_for_s=10.0, retry_s=0.2)


@asynccontextmanager
async def _opened(dsn: str, timeout: timedelta = _TIMEOUT, size: int = 4) -> AsyncIterator[PostgresRates]:
    """What one auth process has of the store."""
    async with open_pool(dsn, name="test", max_size=size, statement_timeout=timeout) as pool:
        yield PostgresRates(pool, timeout, _LATELY)


@pytest.fixture
async def dsn(postgres_dsn: str) -> str:
    """Of a store with its tables."""
    await migrate(postgres_dsn, SCHEMA, migrations())
    return postgres_dsn


@pytest.fixture(params=["fake", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[RateStore]:
    if request.param == "fake":
        yield FakeRates()
        return
    dsn = request.getfixturevalue("postgres_dsn")
    await migrate(dsn, SCHEMA, migrations())
    async with _opened(dsn) as real:
        yield real


def _look(book: RateBook) -> RateBook:
    return book


async def _seen(store: RateStore, holder: str, *limits: str) -> dict[str, Window]:
    return dict((await store.exchange(holder, limits, _look)).windows)


async def _lease(store: RateStore, holder: str, limit: str, demand: Demand) -> int:
    """A turn at one limit; what was granted."""

    def use(book: RateBook) -> int:
        return lease(book.windows[limit], holder, demand, book.now_s, _RULE).granted

    return await store.exchange(holder, [limit], use)


async def test_a_window_is_kept_as_it_was_left(store: RateStore) -> None:
    """Every field, whatever the names and however large the numbers; a new one is empty."""
    kept = Window(
        at_s=1_790_000_000.123457,
        used={1_790_000_000: 3, 1_790_000_001: 2**63},
        holdings={"a'b\"": Holding(1.5, 2**62, 4, 5, 1e-9), "Zoë 日本": Holding(2.25)},
        void_s=4_000_000_000.0,
    )

    def use(book: RateBook) -> None:
        window = book.windows["key/requests/Zoë 'x'"]
        assert (window.used, window.holdings) == ({}, {})
        window.at_s, window.used, window.holdings = kept.at_s, dict(kept.used), dict(kept.holdings)
        window.void_s = kept.void_s

    await store.exchange("a", ["key/requests/Zoë 'x'"], use)
    assert await _seen(store, "b", "key/requests/Zoë 'x'") == {"key/requests/Zoë 'x'": kept}


async def test_what_a_holder_stops_naming_comes_once_more(store: RateStore) -> None:
    """So that it can be given back; what others name is not shown."""
    await _seen(store, "b", "z")
    await _seen(store, "a", "x", "y")
    assert set(await _seen(store, "a", "y", "w")) == {"w", "x", "y"}
    assert set(await _seen(store, "a", "w")) == {"w", "y"}
    assert set(await _seen(store, "a")) == {"w"}
    assert set(await _seen(store, "a")) == set()


async def test_who_was_heard_of_counts(store: RateStore) -> None:
    """Every holder once, the one that asks included, whatever it names."""
    counts = [(await store.exchange(name, limits, _look)).holders for name, limits in (
        ("a", ["x"]), ("a", []), ("b", ["y"]), ("c", []), ("a", ["x"]),
    )]  # fmt: skip
    assert counts == [1, 1, 2, 3, 3]


async def test_a_use_that_fails_changes_nothing(store: RateStore) -> None:
    """Neither the windows nor what the holder named."""
    await _lease(store, "a", "x", Demand(0, 0, 60))
    before = await _seen(store, "b", "x")

    def use(book: RateBook) -> None:
        book.windows["x"].give_back("a")
        raise LookupError

    with pytest.raises(LookupError):
        await store.exchange("a", ["y"], use)
    assert await _seen(store, "b", "x") == before
    assert set(await _seen(store, "a")) == {"x"}


async def test_time_does_not_go_back(store: RateStore) -> None:
    """Each exchange's time is not before the last one's."""
    times = [(await store.exchange("a", ["x"], _look)).now_s for _ in range(5)]
    assert times == sorted(times)


async def test_the_sweep_ends_what_is_void(store: RateStore) -> None:
    """And nothing else: the rest is as it was."""
    await _lease(store, "a", "full", Demand(0, 0, 60))
    before = await _seen(store, "b", "full")

    def void(book: RateBook) -> None:
        for window in book.windows.values():
            window.void_s = book.now_s - 1.0

    await store.exchange("c", ["x", "y"], void)
    assert await store.sweep() == 2
    assert await store.sweep() == 0
    assert await _seen(store, "b", "full") == before
    assert (await _seen(store, "d", "x"))["x"] == Window()


async def _hammer(store: RateStore, holder: str, limits: Sequence[str], turns: int) -> int:
    """Takes one unit of each limit, again and again; how many it got."""
    got = dict.fromkeys(limits, 0)

    def use(book: RateBook) -> None:
        for limit in limits:
            demand = Demand(got[limit], 0, 1)
            got[limit] += lease(book.windows[limit], holder, demand, book.now_s, _RULE).granted

    for _ in range(turns):
        await store.exchange(holder, limits, use)
        await asyncio.sleep(0)
    return sum(got.values())


async def test_hammered_at_once_it_is_exact(store: RateStore) -> None:
    """Units that are used as soon as granted: all of the limit, and not one more."""
    got = await asyncio.gather(*(_hammer(store, f"h{n}", ["x"], 40) for n in range(4)))
    assert sum(got) == _RULE.total
    assert min(got) > 0


async def test_two_processes_hammering_are_exact(dsn: str) -> None:
    """Over connections of their own, and with the limits named in any order: no deadlock, nothing over or lost."""
    names = [f"limit {n}" for n in range(5)]
    async with _opened(dsn) as one, _opened(dsn) as other:
        got = await asyncio.gather(*(
            _hammer(store, f"{id(store)} {n}", names[n:] + names[:n] if n % 2 else names[::-1], 30)
            for n in range(4) for store in (one, other)
        ))  # fmt: skip
        windows = await _seen(one, "last", *names)
    assert sum(got) == len(names) * _RULE.total
    for window in windows.values():
        assert sum(window.used.values()) + sum(each.held for each in window.holdings.values()) == _RULE.total


async def test_a_restart_of_the_process_loses_nothing(dsn: str) -> None:
    """What was held and used is the store's."""
    async with _opened(dsn) as store:
        await _lease(store, "a", "x", Demand(0, 0, 60))
    async with _opened(dsn) as store:
        assert await _lease(store, "b", "x", Demand(0, 0, 60)) == 40


async def test_time_is_read_after_the_wait_for_a_lock(dsn: str) -> None:
    """An exchange that had to wait for another does not take place before it."""
    async with _opened(dsn) as store, await psycopg.AsyncConnection.connect(dsn) as blocker:
        await _seen(store, "a", "x", "y")
        await blocker.execute("SELECT FROM auth.rate_limit WHERE id = 'y' FOR UPDATE")
        waiting = asyncio.create_task(store.exchange("b", ["x", "y"], _look))
        await _until_blocked(dsn)
        released = await (
            await blocker.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        ).fetchone()
        await blocker.rollback()
        assert released is not None
        assert (await waiting).now_s >= released[0]


async def test_a_locked_limit_is_told_in_time_and_got_over(dsn: str) -> None:
    """Somebody keeps the row: UpstreamError within the limit; later the same connections serve again."""
    limit = timedelta(seconds=0.3)
    async with _opened(dsn, limit, size=1) as store, await psycopg.AsyncConnection.connect(dsn) as blocker:
        await _seen(store, "a", "x")
        await blocker.execute("SELECT FROM auth.rate_limit WHERE id = 'x' FOR UPDATE")
        async with asyncio.timeout(limit.total_seconds() + 2):
            with pytest.raises(UpstreamError):
                await store.exchange("a", ["x"], _look)
        await blocker.rollback()
        assert set(await _until_served(store)) == {"x"}


async def test_a_process_that_stops_in_the_middle_stops_nobody_else(dsn: str) -> None:
    """Its transaction is ended by the store, which it learns when it goes on."""
    limit = timedelta(seconds=0.3)
    async with _opened(dsn, limit) as frozen, _opened(dsn) as store:
        await _seen(frozen, "a", "x")
        async with frozen._pool.connection() as connection:
            await frozen._locked(connection, "a", ["x"])
            assert await _lease(store, "b", "x", Demand(0, 0, 60)) == 60
            with pytest.raises(UpstreamError):
                await frozen._time_limit.run(frozen._kept(connection, {}, "a", ["x"]), limit)
        assert set(await _until_served(frozen)) == {"x"}


async def _until_served(store: RateStore) -> dict[str, Window]:
    async with asyncio.timeout(_SOON_S):
        while True:
            try:
                return await _seen(store, "a", "x")
            except UpstreamError:
                continue


async def _until_blocked(dsn: str) -> None:
    """Returns once somebody waits for a lock."""
    async with (
        asyncio.timeout(_SOON_S),
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
    ):
        while True:
            waiting = await connection.execute("SELECT FROM pg_locks WHERE NOT granted")
            if await waiting.fetchone() is not None:
                return
