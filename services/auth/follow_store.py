"""The job that keeps the live key set in step with the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

from meshkit.errors import UpstreamError
from meshkit.telemetry import Logger
from services.auth.live_key_set import LiveKeySet
from services.auth.ports import KeyFeed, StoreRead


class FollowStore:
    """Reads the store whenever it may have changed, at least once per `poll`.

    After a failed reading the next one is of the whole: the store that comes back may be another than the one
    that went, restored from a backup or promoted from a replica.
    """

    def __init__(
        self,
        feed: KeyFeed,
        live: LiveKeySet,
        poll: timedelta,
        monotonic: Callable[[], float],
        log: Logger,
    ) -> None:
        self._feed = feed
        self._live = live
        self._poll = poll
        self._monotonic = monotonic
        self._log = log
        self._in_step = False
        self._told: type[Exception] | None = None
        """The kind of failure that the log has; the same one again, every poll, would drown it."""

    async def refresh(self) -> None:
        """Reads the store once. Raises UpstreamError while it cannot be reached."""
        begun_s = self._monotonic()
        was_in_step, self._in_step = self._in_step, False
        whole = not was_in_step
        read = await self._read(whole=whole)
        if read.version < self._live.version and not whole:
            self._log.warning("key store went back", held=self._live.version, found=read.version)
            whole = True
            read = await self._read(whole=True)
        self._live.take(read, whole=whole, begun_s=begun_s)
        self._in_step = True

    async def run(self) -> NoReturn:
        """Follows until cancelled, whatever the store does."""
        while True:
            await self._wait()
            await self._try()

    async def _wait(self) -> None:
        try:
            await self._feed.wait(self._poll)
        except Exception as error:  # noqa: BLE001 - the poll goes on without notifications
            self._log.exception("waiting for the key store failed", error)
            await asyncio.sleep(self._poll.total_seconds())

    async def _read(self, *, whole: bool) -> StoreRead:
        return await self._feed.read(0 if whole else self._live.version)

    async def _try(self) -> None:
        try:
            await self.refresh()
        except Exception as error:  # noqa: BLE001 - a follower that ends would leave every router to go stale
            if type(error) is not self._told:
                self._tell(error)
            self._told = type(error)
        else:
            if self._told is not None:
                self._log.info("key store is back", version=self._live.version)
            self._told = None

    def _tell(self, error: Exception) -> None:
        event = "key store cannot be read; watchers get no heartbeat"
        if isinstance(error, UpstreamError):
            self._log.warning(event, reason=error.message)
        else:
            self._log.exception(event, error)
