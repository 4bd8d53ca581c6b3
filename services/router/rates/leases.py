"""Keeps the slices of limits: talks to Auth in the background, and at once where a request waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from meshkit.errors import InvalidRequest, UpstreamError, WeirError
from meshkit.telemetry import Logger
from services.router.ports import Clock, RateAuthority
from services.router.rate_settings import RateSettings
from services.router.rates.balance import Slice
from services.router.rates.book import Book
from services.router.rates.metrics import RateMetrics
from services.router.rates.subjects import Limit

LONGEST_PAUSE_S: Final = 1.0
"""Between two calls while Auth is away."""


class _Job:
    """One holder's calls, one at a time."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self._wake = asyncio.Event()
        self._next = asyncio.Event()

    def wanted(self) -> asyncio.Event:
        """Asks for a call now; the event is that of the end of the first call that begins after this."""
        self._wake.set()
        return self._next

    def open(self, limit: Limit) -> Slice:
        """Begins to use a limit; a job that slept for want of any is awake now."""
        if not self.book.slices:
            self._wake.set()
        return self.book.open(limit)

    async def due(self, every_s: float) -> asyncio.Event:
        """Returns when it is time for the next call, with the event to set at its end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None if self.book.is_quiet else every_s):
                await self._wake.wait()
        self._wake.clear()
        done, self._next = self._next, asyncio.Event()
        return done


class Leases:
    """The slices of this process, by limit.

    One holder may name a thousand limits at once, so there are more holders where more are in use.

    Args:
        new_holder: makes names that nobody has or had.
        workers: router processes, before Auth says how many hold limits.
    """

    def __init__(
        self,
        authority: RateAuthority,
        settings: RateSettings,
        clock: Clock,
        new_holder: Callable[[], str],
        workers: int,
        metrics: RateMetrics,
        log: Logger,
    ) -> None:
        self._authority = authority
        self._settings = settings
        self._clock = clock
        self._new_holder = new_holder
        self._workers = workers
        self._metrics = metrics
        self._log = log
        self._jobs: list[_Job] = []
        self._of: dict[str, tuple[Slice, _Job]] = {}
        self._away: set[Book] = set()
        self._more = asyncio.Event()

    def slice(self, limit: Limit) -> Slice:
        """What is held of a limit; it is in use from now on. Raises UpstreamError where too many are."""
        known = self._of.get(limit.id)
        return self._open(limit) if known is None else known[0]

    def _open(self, limit: Limit) -> Slice:
        if len(self._of) >= self._settings.max_limits:
            raise UpstreamError(f"over {self._settings.max_limits} limits are in use at this worker")
        job = next((job for job in self._jobs if not job.book.is_full), None)
        if job is None:
            job = _Job(Book(self._new_holder(), self._workers, self._settings.every_s))
            self._jobs.append(job)
            self._more.set()
        held = job.open(limit)
        self._of[limit.id] = (held, job)
        return held

    async def asked(self, limits: list[Limit], at_most_s: float) -> None:
        """Returns when Auth was asked about these limits in a call that begins after this one, or after `at_most_s`."""
        events = {job.wanted() for job in {self._of[limit.id][1] for limit in limits if limit.id in self._of}}
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                for event in events:
                    await event.wait()

    async def watch(self) -> None:
        """Keeps the slices until cancelled."""
        begun: set[_Job] = set()
        async with asyncio.TaskGroup() as tasks:
            while True:
                for job in self._jobs:
                    if job not in begun:
                        begun.add(job)
                        tasks.create_task(self._keep(job), name="rate-leases")
                self._more.clear()
                await self._more.wait()

    async def stop(self) -> None:
        """Gives back what is held, if Auth takes it within the time of one request's wait."""
        for job in self._jobs:
            job.book.give_back()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.wait_s):
                await asyncio.gather(
                    *(self._exchange(job.book) for job in self._jobs if not job.book.is_quiet)
                )

    async def _keep(self, job: _Job) -> None:
        pause_s = self._settings.every_s
        while True:
            done = await job.due(pause_s)
            try:
                answered = await self._exchange(job.book)
            finally:
                done.set()
            pause_s = self._settings.every_s if answered else min(2 * pause_s, LONGEST_PAUSE_S)
            await self._clock.sleep(self._settings.gap_s)

    async def _exchange(self, book: Book) -> bool:
        """One call; whether it was answered."""
        begun_s = self._clock.monotonic()
        try:
            response = await self._authority.lease(book.request(begun_s))
            done = book.granted(response, begun_s, self._clock.monotonic())
        except InvalidRequest as error:
            book.renew(self._new_holder())
            self._failed(book, error)
            return False
        except WeirError as error:
            self._failed(book, error)
            return False
        for limit_id in done:
            del self._of[limit_id]
        self._answered(book)
        return True

    def _answered(self, book: Book) -> None:
        self._metrics.exchanged(failed=False)
        if book not in self._away:
            return
        self._away.discard(book)
        if not self._away:
            self._metrics.away(away=False)
            self._log.info("auth answers about limits again")

    def _failed(self, book: Book, error: WeirError) -> None:
        self._metrics.exchanged(failed=True)
        book.failed()
        if not self._away:
            self._metrics.away(away=True)
            self._log.warning(
                "auth does not answer about limits", error=str(error), limited_requests=self._settings.outage
            )
        self._away.add(book)
