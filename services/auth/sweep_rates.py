"""Job: ends counts that nobody needs any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from meshkit.errors import UpstreamError
from meshkit.telemetry import Logger
from services.auth.ports import RateStore


class SweepRates:
    """Sweeps the store every `interval`."""

    def __init__(self, store: RateStore, interval: timedelta, log: Logger) -> None:
        self._store = store
        self._interval = interval
        self._log = log

    async def forever(self) -> None:
        """Sweeps again and again. A failure is logged: what is left over does no harm until the next time."""
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            try:
                await self._store.sweep()
            except UpstreamError as error:
                self._log.warning("counts of limits were not swept", reason=error.message)
