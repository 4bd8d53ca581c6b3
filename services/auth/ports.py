"""What Auth needs from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from gen.weir.auth.v1 import Key
from services.auth.domain.key_set import Change

Clock = Callable[[], datetime]
"""The time now, in UTC."""

RandomBytes = Callable[[int], bytes]
"""As many unpredictable bytes as asked for."""


class KeyStore(Protocol):
    """Where keys are kept, for every auth process alike.

    Each method raises UpstreamError while the store cannot be reached.
    """

    async def add(self, key: Key) -> None:
        """Keeps a new key; once this returns it is durable. Raises KeyIdTaken if its id is in use."""

    async def find(self, key_id: str) -> Key | None:
        """The key as it is now."""


class KeyIdTaken(Exception):
    """Another key has this id."""


@dataclass(frozen=True, slots=True)
class StoreRead:
    """The store at one moment."""

    version: int
    """Of the whole key set: at least 1, and at least that of the last change."""
    changes: Sequence[Change]
    """Every key whose version is above the one asked for, versions rising."""


class KeyFeed(Protocol):
    """The store as one follower sees it: all changes, its own and other processes', in the order of their versions.

    A change becomes visible no later than any change with a higher version. Versions are never used twice, not even
    by a store that was emptied or restored from a backup; only then can the version be lower than it was before.
    """

    async def read(self, after_version: int) -> StoreRead:
        """What changed since; 0 reads all. Raises UpstreamError while the store cannot be reached."""

    async def wait(self, at_most: timedelta) -> None:
        """Returns when something may have changed since the last `read` began, or after `at_most`. Raises nothing."""

    async def close(self) -> None:
        """Gives back what it holds. `read` and `wait` are not called any more."""
