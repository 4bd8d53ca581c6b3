"""The store in PostgreSQL: ledger.entry, one partition for each day."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gen.weir.ledger.v1 import UsageRow
from meshkit.errors import LedgerUnavailable
from meshkit.telemetry import Logger
from services.ledger.adapters import statements
from services.ledger.adapters.rows import batch_json, usage_row
from services.ledger.domain.entry import ChargedEntry
from services.ledger.domain.reader import Team
from services.ledger.ports import EntryRefusedError

SCHEMA = "ledger"
_REFUSALS = (psycopg.DataError, psycopg.IntegrityError)
"""What PostgreSQL answers to a value that it will never take."""


class PostgresEntryStore:
    """Entries in PostgreSQL (services.ledger.ports.EntryStore, DayStore). The pool is its opener's to close."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection], log: Logger) -> None:
        self._pool = pool
        self._log = log
        self._days: set[date] = set()
        """Known to have a partition; a cache, checked again when PostgreSQL finds none."""

    async def write(self, entries: Sequence[ChargedEntry]) -> int:
        """See the port. One statement, one transaction; returns once PostgreSQL has committed."""
        async with self._connection() as connection:
            try:
                return await self._insert(connection, entries)
            except _REFUSALS:
                return await self._insert_singly(connection, entries)

    async def prepare(self, first: date, last: date) -> None:
        """See the port."""
        async with self._connection() as connection:
            await connection.execute(statements.PREPARE_DAYS, (first, last))

    async def usage(
        self, since: datetime | None, until: datetime, team: Team | None = None
    ) -> list[UsageRow]:
        """See the port."""
        span: dict[str, object] = {"since": since, "until": until}
        async with self._connection() as connection:
            if team is None:
                cursor = await connection.execute(statements.USAGE_OF_ALL, span)
            else:
                cursor = await connection.execute(
                    statements.USAGE_OF_TEAM, {**span, "org": team.org, "team": team.team}
                )
            return [usage_row(row) async for row in cursor]

    async def _insert(self, connection: AsyncConnection, entries: Sequence[ChargedEntry]) -> int:
        days = {entry.sound.day for entry in entries}
        for day in sorted(days - self._days):
            await connection.execute(statements.PREPARE_DAYS, (day, day))
        self._days |= days
        cursor = await connection.execute(statements.INSERT, (batch_json(entries),))
        return cursor.rowcount

    async def _insert_singly(self, connection: AsyncConnection, entries: Sequence[ChargedEntry]) -> int:
        """Finds the entry that PostgreSQL refuses, or writes all if none is: a partition may have been dropped."""
        self._days.clear()
        new = 0
        for index, entry in enumerate(entries):
            try:
                new += await self._insert(connection, [entry])
            except _REFUSALS as error:
                raise EntryRefusedError(index, type(error).__name__) from error
        return new

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except psycopg.OperationalError as error:
            # Its text may name hosts and users: it goes to the log alone.
            self._log.warning("PostgreSQL cannot be used", error=type(error).__name__, reason=str(error))
            raise LedgerUnavailable(f"PostgreSQL cannot be used: {type(error).__name__}") from error
