"""One auth process at a time: an advisory lock of PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from psycopg import AsyncConnection

from services.auth.adapters.time_limit import TimeLimit

_LOCK: Final = 0x7765_6972_6164_6D6E
""""weiradmn" in ASCII; the migrations' own lock has another number."""


class PostgresTurn:
    """A Turn over a connection of its own: what is done inside takes the pool's.

    Args:
        dsn: libpq connection string.
        timeout: for connecting and for the wait for the others.
    """

    def __init__(self, dsn: str, timeout: timedelta) -> None:
        self._dsn = dsn
        self._timeout = timeout
        self._time_limit = TimeLimit()

    @asynccontextmanager
    async def __call__(self) -> AsyncGenerator[None]:
        """Waits for its turn. The lock ends with the connection, however that ends."""
        connection = await self._time_limit.run(self._locked(), self._timeout)
        try:
            yield
        finally:
            await connection.close()

    async def _locked(self) -> AsyncConnection:
        connection = await AsyncConnection.connect(
            self._dsn, autocommit=True, application_name="auth first key"
        )
        try:
            await connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        except BaseException:
            await connection.close()
            raise
        return connection
