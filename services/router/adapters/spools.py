"""All spools of one router process: its own, and those it adopted."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge

from meshkit.codec import Codec
from meshkit.telemetry import Logger
from services.router.adapters import spool_owner
from services.router.adapters.spool import Spool, SpoolContext
from services.router.adapters.spool_quarantine import Quarantine
from services.router.adapters.spool_recovery import Recovery
from services.router.adapters.spool_segment import Write
from services.router.adapters.spool_sync import BackgroundSync, sync_folder
from services.router.spool_settings import SpoolSettings


class Spools:
    """The folder `<home>/spool`, shared by all workers of a machine (services.router.adopt_spools.Orphans).

    Args:
        folder: made if it does not exist; on a local file system (locks).
        write: os.write, or what stands in for it where a disk is to be full.
    """

    def __init__(
        self,
        folder: Path,
        settings: SpoolSettings,
        codec: Codec,
        registry: CollectorRegistry,
        log: Logger,
        write: Write = os.write,
    ) -> None:
        self._folder = folder
        self._codec = codec
        self._log = log
        self._spools: list[Spool] = []
        self._sync = BackgroundSync(timedelta(milliseconds=settings.sync_delay_ms), log)
        appended = Counter("weir_router_spool_appended_bytes", "Bytes written to spools.", registry=registry)
        self.quarantine = Quarantine(folder, registry, log)
        self._context = SpoolContext(settings, codec, self._sync, self.quarantine, appended.inc, log, write)
        _gauge(
            registry, "unacked_entries", "Ended attempts that the ledger has not acknowledged.", self.unacked
        )
        _gauge(registry, "oldest_seconds", "Age of the oldest of them.", self.oldest_age_s)

    def open(self) -> Spool:
        """Makes this process's own spool and starts the background sync. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        spool = Spool(spool_owner.create(self._folder), self._context)
        sync_folder(self._folder)
        self._sync.start()
        self._spools.append(spool)
        return spool

    def claim(self) -> Spool | None:
        """The next spool whose owner is gone; no other process gets it while this one lives."""
        for path in spool_owner.folders(self._folder):
            owned = spool_owner.lock(path)
            spool = None if owned is None else self._adopted(owned)
            if spool is not None:
                self._spools = [*(known for known in self._spools if not known.is_closed), spool]
                return spool
        return None

    def close(self) -> None:
        """Closes every spool and ends the sync."""
        for spool in self._spools:
            spool.close()
        self._sync.close()

    def unacked(self) -> float:
        """Ended entries that the ledger has not acknowledged, in all spools of this process."""
        return sum(spool.unacked for spool in self._spools if not spool.is_closed)

    def oldest_age_s(self) -> float:
        """Age of the oldest of them, in seconds."""
        return max((spool.oldest_age_s() for spool in self._spools if not spool.is_closed), default=0.0)

    def _adopted(self, owned: spool_owner.Owned) -> Spool | None:
        try:
            recovered = Recovery(self._codec, self.quarantine, self._log).read(owned.path)
            return Spool(owned, self._context, recovered)
        except Exception as error:  # noqa: BLE001 - one spool that cannot be read must not keep the others waiting
            self._log.exception(
                "a spool cannot be read; left for the next look", error, folder=owned.path.name
            )
            owned.release(self._log, remove=False)
            return None


def _gauge(registry: CollectorRegistry, name: str, text: str, value: Callable[[], float]) -> None:
    Gauge(f"weir_router_spool_{name}", text, registry=registry).set_function(value)
