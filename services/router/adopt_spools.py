"""Adopts spools whose owner is gone: another worker's, or those of this worker's earlier life.

Each attempt that was begun and never ended becomes one ABORTED entry, made from its begin alone, so that doing it
again after a crash makes the same entry. It is on disk before anything of the old spool is given up.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from gen.weir.ledger.v1 import Entry, Outcome
from gen.weir.type.v1 import Usage
from meshkit.telemetry import Logger


class OrphanSpool(Protocol):
    """A spool without an owner, now ours alone."""

    def open_attempts(self) -> list[Entry]:
        """Begun and never ended."""

    def end(self, entry: Entry) -> None:
        """Stores how one of them ended."""

    def sync(self) -> None:
        """Returns when everything stored is on disk. Raises OSError."""

    def close(self) -> None:
        """Gives it up again; removes it if nothing of it is unsent."""


SpoolT = TypeVar("SpoolT", bound=OrphanSpool)
SpoolT_contra = TypeVar("SpoolT_contra", bound=OrphanSpool, contravariant=True)
SpoolT_co = TypeVar("SpoolT_co", bound=OrphanSpool, covariant=True)


class Orphans(Protocol[SpoolT_co]):
    """Where orphans are found."""

    def claim(self) -> SpoolT_co | None:
        """The next spool whose owner is gone; no other process gets it while this one lives. Raises OSError."""


class Feed(Protocol[SpoolT_contra]):
    """Sends what spools hold."""

    def adopt(self, spool: SpoolT_contra) -> None:
        """Sends what is unsent in `spool`, then closes it."""


def aborted(begun: Entry) -> Entry:
    """The terminal entry of an attempt whose router died: charged at its reservation, which is an estimate."""
    usage = replace(begun.usage or Usage(), estimated=True)
    return replace(
        begun, outcome=Outcome.ABORTED, error_reason="", usage=usage, latency=None, first_token=None
    )


class AdoptSpools(Generic[SpoolT]):
    """Looks for orphans at the start and then every `interval`."""

    def __init__(
        self, orphans: Orphans[SpoolT], feed: Feed[SpoolT], interval: timedelta, log: Logger
    ) -> None:
        self._orphans = orphans
        self._feed = feed
        self._interval_s = interval.total_seconds()
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Begins to look, in the background: a start does not wait for the past."""
        self._task = asyncio.create_task(self._run(), name="adopt-spools")

    async def stop(self) -> None:
        """Ends it. An adoption in progress is finished first."""
        self._stopping.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def adopt(self) -> int:
        """Adopts every orphan there is now; returns how many. Raises OSError."""
        adopted = 0
        while (spool := await asyncio.to_thread(self._orphans.claim)) is not None:
            try:
                count = await asyncio.to_thread(_abort_open, spool)
            except BaseException:
                spool.close()  # nothing is given up; the next look finds it again
                raise
            self._log.info("adopted a spool whose owner is gone", aborted_attempts=count)
            self._feed.adopt(spool)
            adopted += 1
        return adopted

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.adopt()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the watch; the next look is soon
                self._log.exception("a spool cannot be adopted", error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._interval_s)


def _abort_open(spool: OrphanSpool) -> int:
    attempts = spool.open_attempts()
    for begun in attempts:
        spool.end(aborted(begun))
    spool.sync()
    return len(attempts)
