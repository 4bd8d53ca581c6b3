"""A limit on one use of PostgreSQL that holds even where the server is frozen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import psycopg

from meshkit.errors import UpstreamError

_T = TypeVar("_T")


class TimeLimit:
    """Runs work against PostgreSQL and turns what says that it cannot be used now into UpstreamError.

    On cancellation psycopg asks the server to stop the statement and waits up to ten seconds for it. Here that goes
    on behind the caller's back: the caller is told at the limit.
    """

    def __init__(self) -> None:
        self._late: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, _T], limit: timedelta) -> _T:
        """What `work` returns. Raises UpstreamError after `limit` and for operational faults; others as they are."""
        task = asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=limit.total_seconds())
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not done:
            self._abandon(task)
            raise UpstreamError("the key store does not answer")
        try:
            return task.result()
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise UpstreamError("the key store cannot be reached") from error

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        self._late.add(task)
        task.add_done_callback(self._forget)
        task.cancel()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as lost
