"""The attempt log as one thing to start and stop: this worker's spool, the feed to the ledger, and adoption."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry

from gen.weir.ledger.v1.service import LedgerClient
from meshkit.codec import Codec
from meshkit.telemetry import Logger
from services.router.adapters.ledger_feed import LedgerFeed
from services.router.adapters.spools import Spools
from services.router.adopt_spools import AdoptSpools
from services.router.ports import AttemptLog
from services.router.spool_settings import FeedSettings, SpoolSettings


class Attempts:
    """Owns a spool from its making on. Raises OSError where the folder cannot be written."""

    def __init__(
        self,
        home: Path,
        ledger: LedgerClient,
        spool: SpoolSettings,
        feed: FeedSettings,
        codec: Codec,
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        self._spools = Spools(home / "spool", spool, codec, registry, log)
        self._feed = LedgerFeed(ledger, feed, codec, self._spools.quarantine, log, random.Random())  # noqa: S311 - jitter
        self._adoption = AdoptSpools(self._spools, self._feed, timedelta(seconds=spool.adopt_interval_s), log)
        self._own = self._spools.open()
        self.log: AttemptLog = self._own

    async def start(self) -> None:
        """Begins to send, and to look for spools without an owner."""
        await self._feed.start(self._own)
        await self._adoption.start()

    async def stop(self, limit: timedelta) -> None:
        """Sends what is left if the ledger takes it within `limit`; the spool keeps the rest for the next worker."""
        await self._adoption.stop()
        await self._feed.stop(limit)
        self._spools.close()
