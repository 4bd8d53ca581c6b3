"""Job: makes room for the coming days before their first entry arrives."""

from __future__ import annotations

import asyncio
from datetime import UTC, timedelta

from meshkit.errors import LedgerUnavailable
from meshkit.telemetry import Logger
from services.ledger.ports import Clock, DayStore


class PrepareDays:
    """Keeps today and `ahead` days after it ready, looking again every `interval`."""

    def __init__(
        self, store: DayStore, clock: Clock, log: Logger, *, ahead: timedelta, interval: timedelta
    ) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._ahead = ahead
        self._interval = interval

    async def once(self) -> None:
        """Prepares the days. Raises LedgerUnavailable."""
        today = self._clock().astimezone(UTC).date()
        await self._store.prepare(today, today + self._ahead)

    async def forever(self) -> None:
        """Prepares again and again. A failure is logged: the first entry of a day makes its room in any case."""
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            try:
                await self.once()
            except LedgerUnavailable as error:
                self._log.warning("no room was made for the coming days", reason=error.message)
