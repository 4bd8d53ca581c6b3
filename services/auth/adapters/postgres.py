"""Keys in PostgreSQL, schema `auth` (see migrations/)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg_pool import AsyncConnectionPool

from gen.weir.auth.v1 import AuditEvent, Key
from services.auth.adapters import postgres_audit
from services.auth.adapters import postgres_statements as statements
from services.auth.adapters.postgres_key_rows import key_of, packed, row_of, unpack
from services.auth.adapters.time_limit import TimeLimit
from services.auth.domain.key_set import Change
from services.auth.domain.pages import KeyQuery
from services.auth.ports import KeyIdTaken, NewSecret, StoreRead

SCHEMA = "auth"
_BATCH: Final = 1_000
"""Rows at once, about 10 ms."""
_UNPACKED: Final = 10_000
"""Keys that are kept as messages after they were asked for, about 1 KB each."""


def migrations() -> Traversable:
    """The folder of this schema's scripts."""
    return resources.files("services.auth").joinpath("migrations")


class PostgresKeyStore:
    """KeyStore over a pool that the bootstrap opens and closes.

    Args:
        timeout: for one use, the wait for a connection included.
    """

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection], timeout: timedelta) -> None:
        self._pool = pool
        self._timeout = timeout
        self._time_limit = TimeLimit()

    async def add(self, key: Key, event: AuditEvent | None = None) -> None:
        """Keeps a new key."""
        try:
            await self._time_limit.run(self._add(key, event), self._timeout)
        except psycopg.errors.UniqueViolation as error:
            raise KeyIdTaken(key.id) from error

    async def find(self, key_id: str) -> Key | None:
        """The key as it is now."""
        return await self._time_limit.run(self._find(key_id), self._timeout)

    async def page(self, query: KeyQuery) -> Sequence[Key]:
        """Keys, newest first."""
        return await self._time_limit.run(self._page(query), self._timeout)

    async def rotate(self, key_id: str, secret: NewSecret, event: AuditEvent) -> Key | None:
        """Gives a living key a new secret."""
        values = {"sha256": secret.sha256, "at": secret.at, "previous_until": secret.previous_until}
        return await self._change(statements.ROTATE, {"id": key_id, **values}, event)

    async def revoke(self, key_id: str, at: datetime, event: AuditEvent) -> Key | None:
        """Ends a key."""
        return await self._change(statements.REVOKE, {"id": key_id, "at": at}, event)

    async def sample(self, key_id: str, share: float, event: AuditEvent) -> Key | None:
        """Sets the share of requests that are kept."""
        return await self._change(statements.SAMPLE, {"id": key_id, "share": share}, event)

    async def has_admin(self, at: datetime) -> bool:
        """Whether some admin key lives."""
        return await self._time_limit.run(self._has_admin(at), self._timeout)

    async def _change(
        self, statement: sql.Composed, values: Mapping[str, Any], event: AuditEvent
    ) -> Key | None:
        return await self._time_limit.run(self._changed(statement, values, event), self._timeout)

    async def _add(self, key: Key, event: AuditEvent | None) -> None:
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(statements.ADD, row_of(key))
            await postgres_audit.add(connection, () if event is None else (event,))

    async def _find(self, key_id: str) -> Key | None:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(statements.FIND, (key_id,))).fetchone()
        return None if row is None else key_of(row)

    async def _page(self, query: KeyQuery) -> list[Key]:
        after_created_at, after_id = query.after or (None, None)
        values = {
            "org": query.org, "team": query.team, "living_at": query.living_at, "most": query.most,
            "after_created_at": after_created_at, "after_id": after_id,
        }  # fmt: skip
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(statements.PAGE, values)).fetchall()
        return [key_of(row) for row in rows]

    async def _changed(
        self, statement: sql.Composed, values: Mapping[str, Any], event: AuditEvent
    ) -> Key | None:
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(statement, values)).fetchone()
            if row is None:
                return None
            await postgres_audit.add(connection, (event,))
        return key_of(row)

    async def _has_admin(self, at: datetime) -> bool:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(statements.HAS_ADMIN, (at,))).fetchone()
        return row is not None and bool(row[0])


class PostgresKeyFeed:
    """KeyFeed over a connection of its own, which listens before it reads: no change falls in between.

    Not from the pool: a listening connection is never given back, and this one is made anew at the follower's pace.

    Args:
        dsn: libpq connection string.
        timeout: for one reading of what changed, connecting included.
        load_timeout: for one reading of all.
    """

    def __init__(self, dsn: str, timeout: timedelta, load_timeout: timedelta) -> None:
        self._dsn = dsn
        self._timeout = timeout
        self._load_timeout = load_timeout
        self._time_limit = TimeLimit()
        self._connection: AsyncConnection | None = None
        self._unpack = lru_cache(_UNPACKED)(unpack)

    async def read(self, after_version: int) -> StoreRead:
        """What changed since."""
        # Out of reach while it is used: after a failure nobody knows what state it is in.
        connection, self._connection = self._connection, None
        limit = self._timeout if after_version else self._load_timeout
        self._connection, read = await self._time_limit.run(self._read(connection, after_version), limit)
        return read

    async def wait(self, at_most: timedelta) -> None:
        """Returns at a notification or after `at_most`."""
        at_most_s = at_most.total_seconds()
        if self._connection is None:
            await asyncio.sleep(at_most_s)
            return
        try:
            async for _ in self._connection.notifies(timeout=at_most_s, stop_after=1):
                pass
        except psycopg.Error:
            # The reading that follows at once connects anew, or tells that it cannot.
            await self.close()

    async def close(self) -> None:
        """Drops the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _read(
        self, connection: AsyncConnection | None, after_version: int
    ) -> tuple[AsyncConnection, StoreRead]:
        """What the store said, and the connection that goes on listening; on failure it is closed."""
        used = connection or await AsyncConnection.connect(
            self._dsn, autocommit=True, application_name="auth key feed"
        )
        try:
            if connection is None:
                await used.execute("SET timezone TO 'UTC'")
                await used.execute("LISTEN auth_key_set")
            return used, await self._taken(await used.execute(statements.READ, (after_version,)))
        except BaseException:
            await used.close()
            raise

    async def _taken(self, cursor: AsyncCursor) -> StoreRead:
        """A few rows at a time: as Python's own objects all of them would take ten times their memory."""
        version, changes = 0, list[Change]()
        while rows := await cursor.fetchmany(_BATCH):
            version = rows[0][0]
            changes += [
                Change(row[1], row[2], packed(row[2:]), self._unpack) for row in rows if row[1] is not None
            ]
            await asyncio.sleep(0)  # what else this process does takes its turn
        return StoreRead(version, changes)
