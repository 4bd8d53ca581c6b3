"""Counts of limits in PostgreSQL, schema `auth` (see migrations/)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from meshkit.errors import UpstreamError
from services.auth.adapters.time_limit import TimeLimit
from services.auth.domain.rate_window import Holding, Window
from services.auth.ports import RateBook

_T = TypeVar("_T")

HOLDER_KEPT: Final = timedelta(hours=1)
"""A silent holder's row."""
_TRIES: Final = 3
"""Of locking; the second one finds the rows that the first one missed, unless somebody deletes them by hand."""

# Both settings are of the transaction: nothing of it need be on disk, and a process that stops with rows locked must
# not stop the others for longer than they wait.
_HEAR = """
INSERT INTO auth.rate_holder AS mine (holder, heard_at, limits) VALUES (%s, clock_timestamp(), '{}')
ON CONFLICT (holder) DO UPDATE SET heard_at = clock_timestamp()
RETURNING limits, extract(epoch FROM heard_at)::float8, (
    SELECT count(*) FROM auth.rate_holder other
    WHERE other.holder <> mine.holder AND other.heard_at > clock_timestamp() - %s
), set_config('synchronous_commit', 'off', true), set_config('idle_in_transaction_session_timeout', %s, true)
"""
_MAKE = """
INSERT INTO auth.rate_limit (id, state, void_at)
SELECT new.id, '', clock_timestamp() + interval '1 minute' FROM unnest(%s::text[]) AS new (id)
WHERE NOT EXISTS (SELECT FROM auth.rate_limit known WHERE known.id = new.id)
ORDER BY new.id COLLATE "C"
ON CONFLICT DO NOTHING
"""
# The clock is read outside: inside, it could be read before the wait for the lock.
_LOCK = """
WITH locked AS MATERIALIZED (
    SELECT id, state FROM auth.rate_limit
    WHERE id = ANY (%s::text[] || (SELECT limits FROM auth.rate_holder WHERE holder = %s))
    ORDER BY id FOR UPDATE
)
SELECT id, state, extract(epoch FROM clock_timestamp())::float8 FROM locked
"""
_KEEP = """
UPDATE auth.rate_limit SET state = new.state, void_at = to_timestamp(new.void_s)
FROM unnest(%s::text[], %s::text[], %s::float8[]) AS new (id, state, void_s) WHERE rate_limit.id = new.id
"""
_NAME = "UPDATE auth.rate_holder SET limits = %s::text[] WHERE holder = %s"
_SWEEP = """
DELETE FROM auth.rate_limit WHERE id IN (
    SELECT id FROM auth.rate_limit WHERE void_at < clock_timestamp() LIMIT 10000 FOR UPDATE SKIP LOCKED
)
"""
_SWEEP_HOLDERS = """
DELETE FROM auth.rate_holder WHERE holder IN (
    SELECT holder FROM auth.rate_holder WHERE heard_at < clock_timestamp() - %s FOR UPDATE SKIP LOCKED
)
"""


class PostgresRates:
    """RateStore over a pool that the bootstrap opens and closes. One exchange is five round trips, however many limits.

    Args:
        timeout: for one use, the wait for a connection and for other processes' exchanges included.
        lately: a holder heard of since then counts.
    """

    def __init__(
        self, pool: AsyncConnectionPool[AsyncConnection], timeout: timedelta, lately: timedelta
    ) -> None:
        self._pool = pool
        self._timeout = timeout
        self._lately = lately
        self._time_limit = TimeLimit()

    async def exchange(self, holder: str, limits: Sequence[str], use: Callable[[RateBook], _T]) -> _T:
        """What `use` returns, after the windows are kept as it left them."""
        return await self._time_limit.run(self._exchange(holder, sorted(limits), use), self._timeout)

    async def sweep(self) -> int:
        """Ends what counts no more."""
        return await self._time_limit.run(self._sweep(), self._timeout)

    async def _exchange(self, holder: str, limits: list[str], use: Callable[[RateBook], _T]) -> _T:
        async with self._pool.connection() as connection:
            named, book = await self._locked(connection, holder, limits)
            result = use(book)
            await self._kept(connection, book.windows, holder, limits if limits != named else None)
        return result

    async def _locked(
        self, connection: AsyncConnection, holder: str, limits: list[str]
    ) -> tuple[list[str], RateBook]:
        """What the holder named the last time, and the rows; all of it stays locked until the transaction ends."""
        for _ in range(_TRIES):
            named, book = await self._begun(connection, holder, limits)
            if book.windows.keys() >= set(limits):
                return named, book
            # Rows are locked in one order or not at all: what is missing is made without locks.
            await connection.rollback()
            await connection.execute(_MAKE, (limits,))
        raise UpstreamError("the store does not keep the counts of new limits")

    async def _begun(
        self, connection: AsyncConnection, holder: str, limits: list[str]
    ) -> tuple[list[str], RateBook]:
        """Locks what there is: the holder's row, which no other holder's exchange wants, then the limits' in order."""
        limit_ms = str(self._timeout // timedelta(milliseconds=1))
        # No pipeline: after one, the server does not count the time that it waits for what comes next.
        await connection.execute("BEGIN")
        heard = await connection.execute(_HEAR, (holder, self._lately, limit_ms))
        locked = await connection.execute(_LOCK, (limits, holder))
        rows = await locked.fetchall()
        ((named, now_s, others, *_),) = await heard.fetchall()
        now_s = max([now_s, *(row[2] for row in rows)])
        return named, RateBook(now_s, others + 1, {row[0]: _window(row[1]) for row in rows})

    @staticmethod
    async def _kept(
        connection: AsyncConnection, windows: Mapping[str, Window], holder: str, renamed: list[str] | None
    ) -> None:
        """Ends the transaction."""
        try:
            async with connection.pipeline():
                if windows:
                    await connection.execute(_KEEP, _columns(windows))
                if renamed is not None:
                    await connection.execute(_NAME, (renamed, holder))
                await connection.execute("COMMIT")
        except psycopg.errors.IdleInTransactionSessionTimeout as error:
            raise UpstreamError("this process stopped for too long while it counted") from error

    async def _sweep(self) -> int:
        async with self._pool.connection() as connection:
            ended = (await connection.execute(_SWEEP)).rowcount
            await connection.execute(_SWEEP_HOLDERS, (HOLDER_KEPT,))
        return ended


def _columns(windows: Mapping[str, Window]) -> tuple[list[str], list[str], list[float]]:
    kept = windows.values()
    return list(windows), [_state(window) for window in kept], [window.void_s for window in kept]


def _state(window: Window) -> str:
    holdings = {
        name: (round(one.heard_s, 6), one.seen, one.held, one.unmet, one.recent)
        for name, one in window.holdings.items()
    }
    used = window.used
    return json.dumps((window.at_s, window.void_s, list(used), list(used.values()), holdings))


def _window(state: str) -> Window:
    if not state:
        return Window()
    at_s, void_s, ends, units, holdings = json.loads(state)
    used = dict(zip(ends, units, strict=True))
    return Window(at_s, used, {name: Holding(*fields) for name, fields in holdings.items()}, void_s)
