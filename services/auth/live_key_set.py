"""The key set that a follower keeps in step with the store, and that watchers wait on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from services.auth.domain.key_set import KeySet
from services.auth.ports import StoreRead


class LiveKeySet:
    """A KeySet with the time and the number of its readings. Of one event loop; written by one follower.

    Args:
        fresh_for: how long after a reading of the store began its result may be called the present state.
        monotonic: seconds on a clock that never goes back.
    """

    def __init__(self, fresh_for: timedelta, monotonic: Callable[[], float]) -> None:
        self.keys = KeySet()
        self.reads = 0
        """Readings of the store that succeeded."""
        self.closed = False
        self._fresh_for_s = fresh_for.total_seconds()
        self._monotonic = monotonic
        self._read_at_s = float("-inf")
        self._turned = asyncio.Event()

    @property
    def version(self) -> int:
        """Of the key set; 0 before the first reading."""
        return self.keys.version

    @property
    def age_s(self) -> float:
        """Seconds since the last reading that succeeded began; infinite before the first."""
        return self._monotonic() - self._read_at_s

    @property
    def fresh(self) -> bool:
        """Whether what is held may be called the present state of the store."""
        return self.age_s <= self._fresh_for_s

    def take(self, read: StoreRead, *, whole: bool, begun_s: float) -> None:
        """Takes what a reading brought, and wakes the waiting.

        Args:
            read: what the store said.
            whole: it has every key, and changes may have been missed before it.
            begun_s: when it began, on the monotonic clock.
        """
        if not whole:
            self.keys.extend(read.version, read.changes)
        elif read.version != self.version:
            self.keys.replace(read.version, read.changes)
        self.reads += 1
        self._read_at_s = begun_s
        self._turn()

    def close(self) -> None:
        """Lets every waiter go, now and from now on."""
        self.closed = True
        self._turn()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns once `condition` holds after a reading, or at once if it holds already or after `close`."""
        while not self.closed and not condition():
            await self._turned.wait()

    def _turn(self) -> None:
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()
