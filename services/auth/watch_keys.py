"""WatchKeys: the key set, then its changes, and a sign of life while nothing changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta

from gen.weir.auth.v1 import Heartbeat, KeySnapshot, WatchKeysResponse
from meshkit.errors import UpstreamError
from services.auth.live_key_set import LiveKeySet


class WatchKeys:
    """Sends only what the store said lately, so that a router knows when its own copy grows stale.

    No heartbeat without a reading since the last event, and nothing at all while the store cannot be read.
    A watcher is a version number: one that takes its events slowly skips forms of a key it never saw, and holds
    nothing here.
    """

    def __init__(self, live: LiveKeySet, heartbeat: timedelta) -> None:
        self._live = live
        self._heartbeat_s = heartbeat.total_seconds()

    async def __call__(self, after_version: int) -> AsyncGenerator[WatchKeysResponse]:
        """Events after `after_version`, the first at once; a snapshot first where the changes since are not known.

        Ends when the service drains. Raises UpstreamError if the store went back to an older state: the versions of
        one stream never fall, so the watcher has to ask anew.
        """
        version, told = after_version, 0
        await self._live.until(lambda: self._live.fresh)
        while not self._live.closed:
            if self._live.version < told:
                raise UpstreamError("the key store went back to an older state; watch anew")
            for event in self._news(version):
                yield event
                version = told = event.version
            await self._pause(version)

    def _news(self, version: int) -> Iterator[WatchKeysResponse]:
        changes = self._live.keys.changes_after(version)
        if changes is None:
            snapshot = KeySnapshot(keys=self._live.keys.snapshot())
            yield WatchKeysResponse(version=self._live.version, snapshot=snapshot)
        elif not changes:
            yield WatchKeysResponse(version=self._live.version, heartbeat=Heartbeat())
        else:
            for change in changes:
                yield WatchKeysResponse(version=change.version, changed=change.key)

    async def _pause(self, version: int) -> None:
        """Returns once there is news, or a heartbeat is due and the store was read meanwhile."""
        reads = self._live.reads
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await self._live.until(lambda: self._live.version != version)
        except TimeoutError:
            await self._live.until(lambda: self._live.reads != reads)
