"""WatchKeys: the key set, then its changes, and a sign of life while nothing changes."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import timedelta
from itertools import accumulate
from typing import Final, cast

from gen.weir.auth.v1 import Heartbeat, Key, KeySnapshot, WatchKeysResponse
from meshkit.errors import UpstreamError
from meshkit.packed import Packed
from services.auth.domain.key_set import Change
from services.auth.live_key_set import LiveKeySet

MAX_SNAPSHOT_BYTES: Final = 24 * 1024 * 1024
"""Three quarters of what a channel of the mesh takes: more than 100,000 keys without patterns."""
_FRAME_BYTES: Final = 5
"""A key's tag and length in a snapshot, at most."""


class WatchKeys:
    """Sends only what the store said lately, so that a router knows when its own copy grows stale.

    No heartbeat without a reading since the last event, and nothing at all while the store cannot be read.
    A watcher is a version number: one that takes its events slowly skips forms of a key it never saw, and holds
    nothing here.

    Args:
        max_snapshot_bytes: about how long a snapshot may be.
    """

    def __init__(
        self, live: LiveKeySet, heartbeat: timedelta, max_snapshot_bytes: int = MAX_SNAPSHOT_BYTES
    ) -> None:
        self._live = live
        self._max_snapshot_bytes = max_snapshot_bytes
        self._heartbeat_s = heartbeat.total_seconds()

    async def __call__(self, after_version: int) -> AsyncGenerator[WatchKeysResponse]:
        """Events after `after_version`; a snapshot first where the changes since are not known.

        The first comes at once, or after two readings where `after_version` is still ahead of this process.

        Ends when the service drains. Raises UpstreamError if the store went back to an older state: the versions of
        one stream never fall, so the watcher has to ask anew.
        """
        version, told = after_version, 0
        await self._live.until(lambda: self._live.fresh)
        await self._catch_up(after_version)
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
            yield from self._whole()
        elif not changes:
            yield WatchKeysResponse(version=self._live.version, heartbeat=Heartbeat())
        else:
            for change in changes:
                yield WatchKeysResponse(version=change.version, changed=change.key)

    def _whole(self) -> Iterator[WatchKeysResponse]:
        """A snapshot; where that would be too long a message, of the keys changed longest ago, the others as changes.

        A watcher that stops in between has a version from which it gets a snapshot again.
        """
        changes, version = self._live.keys.all_changes(), self._live.version
        fitting = _fitting(changes, self._max_snapshot_bytes)
        first, rest = changes[:fitting], changes[fitting:]
        packed = Packed([change.packed for change in first], first[0].unpack) if first else []
        snapshot = KeySnapshot(keys=cast("list[Key]", packed))
        yield WatchKeysResponse(version=first[-1].version if rest else version, snapshot=snapshot)
        for number, change in enumerate(rest, 1):
            at = version if number == len(rest) else change.version
            yield WatchKeysResponse(version=at, changed=change.key)

    async def _catch_up(self, version: int) -> None:
        """Returns once the held version is at least `version`, or the store was read and still is below it.

        Another process of Auth may have told the watcher of a change that this one is just reading. To send the set
        of before meanwhile would make a key revoked a moment ago good again.
        """
        enough = self._live.reads + 2  # the next reading to end may have begun long ago
        await self._live.until(lambda: self._live.version >= version or self._live.reads >= enough)

    async def _pause(self, version: int) -> None:
        """Returns once there is news, or a heartbeat is due and the store was read meanwhile."""
        reads = self._live.reads
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await self._live.until(lambda: self._live.version != version)
        except TimeoutError:
            await self._live.until(lambda: self._live.reads != reads)


def _fitting(changes: Sequence[Change], most_bytes: int) -> int:
    """How many of them fit, at least one."""
    lengths = accumulate(len(change.packed) + _FRAME_BYTES for change in changes)
    return max(1, bisect_right(list(lengths), most_bytes))
