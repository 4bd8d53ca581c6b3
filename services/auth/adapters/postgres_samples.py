"""What was kept of sampled requests, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gen.weir.auth.v1 import Sample
from services.auth.adapters.time_limit import TimeLimit

_ADD = """
INSERT INTO auth.sample (at, request_id, key_id, model, target, prompt, answer, partial)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_NEWEST = """
SELECT at, request_id, key_id, model, target, prompt, answer, partial FROM auth.sample
WHERE %(key_id)s = '' OR key_id = %(key_id)s ORDER BY id DESC LIMIT %(most)s
"""
_COLUMNS = ("at", "request_id", "key_id", "model", "target", "prompt", "answer", "partial")
_FORGET = """
DELETE FROM auth.sample WHERE id IN (SELECT id FROM auth.sample WHERE at < %s ORDER BY at LIMIT %s)
"""


class PostgresSampleStore:
    """SampleStore over a pool that the bootstrap opens and closes.

    Args:
        timeout: for one use, the wait for a connection included.
    """

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection], timeout: timedelta) -> None:
        self._pool = pool
        self._timeout = timeout
        self._time_limit = TimeLimit()

    async def add(self, samples: Sequence[Sample]) -> None:
        """Keeps them, all or none."""
        await self._time_limit.run(self._add(samples), self._timeout)

    async def newest(self, key_id: str, most: int) -> list[Sample]:
        """The newest first."""
        return await self._time_limit.run(self._newest(key_id, most), self._timeout)

    async def forget(self, before: datetime, most: int) -> int:
        """Ends at most so many that began before; how many."""
        return await self._time_limit.run(self._forget(before, most), self._timeout)

    async def _add(self, samples: Sequence[Sample]) -> None:
        rows = [[getattr(sample, column) for column in _COLUMNS] for sample in samples]
        async with self._pool.connection() as connection, connection.transaction():
            await connection.cursor().executemany(_ADD, rows)

    async def _newest(self, key_id: str, most: int) -> list[Sample]:
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_NEWEST, {"key_id": key_id, "most": most})).fetchall()
        return [Sample(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]

    async def _forget(self, before: datetime, most: int) -> int:
        async with self._pool.connection() as connection:
            return (await connection.execute(_FORGET, (before, most))).rowcount
