"""Keys in PostgreSQL, schema `auth` (see migrations/)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gen.weir.auth.v1 import Key
from gen.weir.type.v1 import Principal
from services.auth.adapters.time_limit import TimeLimit
from services.auth.domain.key_set import Change
from services.auth.ports import KeyIdTaken, StoreRead

SCHEMA = "auth"

_FIND = """
SELECT id, secret_sha256, org, team, label, created_at, expires_at, revoked_at, models, targets
FROM auth.key WHERE id = %s
"""
_ADD = """
INSERT INTO auth.key (id, secret_sha256, org, team, label, created_at, expires_at, revoked_at, models, targets)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
# One statement, so that the version and the keys are of the same moment; one row without a key if none changed.
_READ = """
SELECT s.version, k.version,
    k.id, k.secret_sha256, k.org, k.team, k.label, k.created_at, k.expires_at, k.revoked_at, k.models, k.targets
FROM auth.key_set s LEFT JOIN auth.key k ON k.version > %s ORDER BY k.version
"""


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

    async def add(self, key: Key) -> None:
        """Keeps a new key."""
        try:
            await self._time_limit.run(self._add(key), self._timeout)
        except psycopg.errors.UniqueViolation as error:
            raise KeyIdTaken(key.id) from error

    async def find(self, key_id: str) -> Key | None:
        """The key as it is now."""
        return await self._time_limit.run(self._find(key_id), self._timeout)

    async def _add(self, key: Key) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(_ADD, _row_of(key))

    async def _find(self, key_id: str) -> Key | None:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_FIND, (key_id,))).fetchone()
        return None if row is None else _key_of(row)


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

    async def read(self, after_version: int) -> StoreRead:
        """What changed since."""
        # Out of reach while it is used: after a failure nobody knows what state it is in.
        connection, self._connection = self._connection, None
        limit = self._timeout if after_version else self._load_timeout
        self._connection, rows = await self._time_limit.run(self._read(connection, after_version), limit)
        changes = [Change(row[1], _key_of(row[2:])) for row in rows if row[1] is not None]
        return StoreRead(rows[0][0], changes)

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
    ) -> tuple[AsyncConnection, list[tuple[Any, ...]]]:
        """The rows, and the connection that goes on listening; on failure it is closed."""
        used = connection or await AsyncConnection.connect(
            self._dsn, autocommit=True, application_name="auth key feed"
        )
        try:
            if connection is None:
                await used.execute("SET timezone TO 'UTC'")
                await used.execute("LISTEN auth_key_set")
            return used, await (await used.execute(_READ, (after_version,))).fetchall()
        except BaseException:
            await used.close()
            raise


def _row_of(key: Key) -> tuple[Any, ...]:
    principal = Principal() if key.principal is None else key.principal
    return (
        key.id, key.secret_sha256, principal.org, principal.team, key.label,
        key.created_at, key.expires_at, key.revoked_at, key.models, key.targets,
    )  # fmt: skip


def _key_of(row: tuple[Any, ...]) -> Key:
    key_id, secret_sha256, org, team, label, created_at, expires_at, revoked_at, models, targets = row
    return Key(
        id=key_id,
        secret_sha256=secret_sha256,
        principal=Principal(key_id=key_id, org=org, team=team),
        label=label,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        models=models,
        targets=targets,
    )
