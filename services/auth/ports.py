"""What Auth needs from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from gen.weir.auth.v1 import AuditEvent, Key, Sample
from services.auth.domain.key_set import Change
from services.auth.domain.pages import AuditQuery, KeyQuery
from services.auth.domain.rate_window import Window

_T = TypeVar("_T")

Clock = Callable[[], datetime]
"""The time now, in UTC."""

RandomBytes = Callable[[int], bytes]
"""As many unpredictable bytes as asked for."""

Turn = Callable[[], AbstractAsyncContextManager[None]]
"""What is done inside is done by one auth process at a time. Entering raises UpstreamError where that cannot be had."""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """What a rotation gives a key."""

    sha256: bytes
    at: datetime
    previous_until: datetime | None
    """When the secret of before ends; None means at once. A secret before that one ends in any case."""


class KeyStore(Protocol):
    """Where keys are kept, for every auth process alike.

    Changes of one key at the same time do not lose each other. A method that changes something keeps its row of the
    audit together with the change: both or neither. Each method raises UpstreamError while the store cannot be reached.
    """

    async def add(self, key: Key, event: AuditEvent | None = None) -> None:
        """Keeps a new key; once this returns it is durable. Raises KeyIdTaken if its id is in use."""

    async def find(self, key_id: str) -> Key | None:
        """The key as it is now."""

    async def page(self, query: KeyQuery) -> Sequence[Key]:
        """Keys, newest first."""

    async def rotate(self, key_id: str, secret: NewSecret, event: AuditEvent) -> Key | None:
        """Gives a living key a new secret. The key after it; None if it is unknown, or at its end at `secret.at`."""

    async def revoke(self, key_id: str, at: datetime, event: AuditEvent) -> Key | None:
        """Ends a key. The key after it; None if it is unknown or was revoked before."""

    async def sample(self, key_id: str, share: float, event: AuditEvent) -> Key | None:
        """Sets the share of requests that are kept. The key after it; None if it is unknown."""

    async def has_admin(self, at: datetime) -> bool:
        """Whether some key with the scope admin is neither revoked nor expired then."""


class KeyIdTaken(Exception):
    """Another key has this id."""


class AuditLog(Protocol):
    """Where the audit is kept. Each method raises UpstreamError while the store cannot be reached."""

    async def add(self, events: Sequence[AuditEvent]) -> None:
        """Keeps clean events (services.auth.domain.audit), in this order; their ids are not looked at."""

    async def page(self, query: AuditQuery) -> Sequence[AuditEvent]:
        """Rows, newest first."""

    async def forget(self, before: datetime, most: int) -> int:
        """Ends at most so many rows of what happened before then, the oldest first. How many it ended."""


class TokenFile(Protocol):
    """The file with the first admin key. Each method raises OSError."""

    def read(self) -> str | None:
        """The token; None if there is no file."""

    def write(self, token: str) -> None:
        """Makes the file, whole or not at all, for its owner's eyes alone. Raises FileExistsError if there is one."""


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


@dataclass(frozen=True, slots=True)
class RateBook:
    """What is counted of some limits, while nobody else can change it."""

    now_s: float
    """The store's time, read once nobody else could change the windows any more."""
    holders: int
    """How many holders were heard of lately, this one included."""
    windows: Mapping[str, Window]
    """By the limit's id: those asked for, and those that the holder named the last time. To be changed in place."""


class RateStore(Protocol):
    """Where the use of limits is counted, for every auth process alike. Lost if the store crashes.

    Each method raises UpstreamError while the store cannot be reached.
    """

    async def exchange(self, holder: str, limits: Sequence[str], use: Callable[[RateBook], _T]) -> _T:
        """What `use` returns, after the windows are kept as it left them; if it raises, nothing is changed.

        Args:
            holder: who asks; these limits are then what it named the last time.
            limits: ids, each once; those that nobody used so far have an empty window.
            use: called once, in the event loop.
        """

    async def sweep(self) -> int:
        """Ends windows that are as good as new, and holders that are silent for long. How many windows it ended."""


class SampleStore(Protocol):
    """Where what was kept of sampled requests lies.

    Each method raises UpstreamError while the store cannot be reached.
    """

    async def add(self, samples: Sequence[Sample]) -> None:
        """Keeps them, all or none."""

    async def newest(self, key_id: str, most: int) -> list[Sample]:
        """At most so many, of one key or of all (""), those that were kept last first."""

    async def forget(self, before: datetime, most: int) -> int:
        """Ends at most so many that began before; how many."""
