"""Job: ends rows that are older than their keeping."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final, NoReturn, Protocol

from meshkit.errors import UpstreamError
from meshkit.telemetry import Logger
from services.auth.ports import Clock

_INTERVAL: Final = timedelta(hours=1)
_BATCH: Final = 5_000
"""Rows at once: far below what one statement's time allows."""


class Forgets(Protocol):
    """A store of rows that have a time."""

    async def forget(self, before: datetime, most: int) -> int:
        """Ends at most so many rows from before then; how many. Raises UpstreamError while it cannot be reached."""


class Prune:
    """Looks at the start and then every hour; processes that do so at the same time do no harm."""

    def __init__(
        self,
        what: str,
        store: Forgets,
        now: Clock,
        log: Logger,
        *,
        keep: timedelta,
        interval: timedelta = _INTERVAL,
    ) -> None:
        self._what = what
        self._store = store
        self._now = now
        self._log = log
        self._keep = keep
        self._interval = interval

    async def once(self) -> int:
        """How many rows it ended. Raises UpstreamError."""
        before, ended = self._now() - self._keep, 0
        while batch := await self._store.forget(before, _BATCH):
            ended += batch
        return ended

    async def forever(self) -> NoReturn:
        """Until cancelled, whatever the store does."""
        while True:
            try:
                if ended := await self.once():
                    self._log.info("old rows ended", what=self._what, rows=ended)
            except UpstreamError as error:
                self._log.warning("old rows were not ended", what=self._what, reason=error.message)
            except Exception as error:  # noqa: BLE001 - the next round may succeed
                self._log.exception("old rows were not ended", error, what=self._what)
            await asyncio.sleep(self._interval.total_seconds())
