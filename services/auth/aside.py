"""Rows of the audit that nobody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gen.weir.auth.v1 import AuditEvent


class Aside:
    """Keeps rows while the answer goes out; as many at once as `record` does not refuse at once.

    Args:
        record: keeps one. Raises nothing.
    """

    def __init__(self, record: Callable[[AuditEvent], Awaitable[None]]) -> None:
        self._record = record
        self._running: set[asyncio.Task[None]] = set()

    def __call__(self, event: AuditEvent) -> None:
        """Begins."""
        task = asyncio.create_task(self._keep(event))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Returns once all that began is done."""
        await asyncio.gather(*self._running)

    async def _keep(self, event: AuditEvent) -> None:
        await self._record(event)
