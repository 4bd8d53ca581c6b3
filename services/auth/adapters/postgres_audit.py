"""The audit in PostgreSQL, table `auth.audit` (see migrations/)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gen.weir.auth.v1 import AuditEvent
from gen.weir.error.v1 import Reason
from gen.weir.type.v1 import Principal
from services.auth.adapters.time_limit import TimeLimit
from services.auth.domain.pages import AuditQuery

_ADD: Final = """
INSERT INTO auth.audit (at, key_id, org, team, action, subject, address, peer, refused, detail, count)
SELECT coalesce(at, clock_timestamp()), key_id, org, team, action, subject, address, peer, refused, detail, count
FROM unnest(
    %s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[],
    %s::text[], %s::bigint[]
) WITH ORDINALITY
    AS event (at, key_id, org, team, action, subject, address, peer, refused, detail, count, number)
ORDER BY number
"""
_PAGE: Final = """
SELECT id, at, key_id, org, team, action, subject, address, peer, refused, detail, count
FROM auth.audit
WHERE (%(since)s::timestamptz IS NULL OR at >= %(since)s)
    AND (%(key_id)s::text = '' OR key_id = %(key_id)s)
    AND (NOT %(refused)s OR refused <> 0)
    AND (%(below)s::bigint IS NULL OR id < %(below)s)
ORDER BY id DESC LIMIT %(most)s
"""
_FORGET: Final = """
DELETE FROM auth.audit WHERE id IN (SELECT id FROM auth.audit WHERE at < %s ORDER BY at LIMIT %s)
"""


async def add(connection: AsyncConnection, events: Sequence[AuditEvent]) -> None:
    """Keeps events in the connection's transaction."""
    if events:
        columns = zip(*map(_row_of, events), strict=True)
        await connection.execute(_ADD, [list(column) for column in columns])


class PostgresAuditLog:
    """AuditLog over a pool that the bootstrap opens and closes.

    Args:
        timeout: for one use, the wait for a connection included.
    """

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection], timeout: timedelta) -> None:
        self._pool = pool
        self._timeout = timeout
        self._time_limit = TimeLimit()

    async def add(self, events: Sequence[AuditEvent]) -> None:
        """Keeps events."""
        await self._time_limit.run(self._add(events), self._timeout)

    async def page(self, query: AuditQuery) -> Sequence[AuditEvent]:
        """Rows, newest first."""
        return await self._time_limit.run(self._page(query), self._timeout)

    async def forget(self, before: datetime, most: int) -> int:
        """Ends rows."""
        return await self._time_limit.run(self._forget(before, most), self._timeout)

    async def _add(self, events: Sequence[AuditEvent]) -> None:
        async with self._pool.connection() as connection:
            await add(connection, events)

    async def _page(self, query: AuditQuery) -> list[AuditEvent]:
        asked = {
            "since": query.since, "key_id": query.key_id, "refused": query.refused,
            "below": query.below, "most": query.most,
        }  # fmt: skip
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_PAGE, asked)).fetchall()
        return [_event_of(row) for row in rows]

    async def _forget(self, before: datetime, most: int) -> int:
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL weir.audit_retention = 'on'")
            return (await connection.execute(_FORGET, (before, most))).rowcount


def _row_of(event: AuditEvent) -> tuple[Any, ...]:
    who = Principal() if event.who is None else event.who
    return (
        event.at, who.key_id, who.org, who.team, event.action, event.subject, event.address, event.peer,
        int(event.refused), event.detail, event.count,
    )  # fmt: skip


def _event_of(row: tuple[Any, ...]) -> AuditEvent:
    number, at, key_id, org, team, action, subject, address, peer, refused, detail, count = row
    return AuditEvent(
        id=number,
        at=at,
        who=Principal(key_id=key_id, org=org, team=team),
        action=action,
        subject=subject,
        address=address,
        peer=peer,
        refused=Reason(refused),
        detail=detail,
        count=count,
    )
