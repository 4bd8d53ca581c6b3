"""Every key in its latest form, each with the number of its last change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

from gen.weir.auth.v1 import Key


@dataclass(frozen=True, slots=True)
class Change:
    """A key as it is after its last change."""

    version: int
    """Rises with every change of any key; no two changes share it."""
    key_id: str
    packed: bytes
    """The key in its wire form: a tenth of the memory, and sent to watchers as it is."""
    unpack: Callable[[bytes], Key]

    @property
    def key(self) -> Key:
        """The key itself, made anew unless `unpack` remembers it."""
        return self.unpack(self.packed)


class KeySet:
    """The key set of one moment, and how far back its changes are complete.

    Keys are revoked, never deleted: so the changes since a version are the keys whose version is higher, and a
    watcher however far behind costs no memory of its own.
    """

    def __init__(self) -> None:
        self.version = 0
        """0 before the first `replace`."""
        self._complete_after = 0
        self._changes: dict[str, Change] = {}  # in order of version: a changed key moves to the end

    def __len__(self) -> int:
        return len(self._changes)

    def find(self, key_id: str) -> Key | None:
        """The key in its latest form."""
        change = self._changes.get(key_id)
        return None if change is None else change.key

    def replace(self, version: int, changes: Sequence[Change]) -> None:
        """Takes a whole key set. What lay between it and the former one is unknown.

        Args:
            version: of the whole; at least that of its last change.
            changes: every key, versions rising.

        Raises ValueError, and keeps what is held, if they do not rise or end above `version`.
        """
        _check_rising(0, version, changes)
        self._changes = {change.key_id: change for change in changes}
        self.version = self._complete_after = version

    def extend(self, version: int, changes: Sequence[Change]) -> None:
        """Takes every change between the held version and `version`, versions rising.

        Raises ValueError if they do not continue what is held.
        """
        _check_rising(self.version, version, changes)
        for change in changes:
            self._changes.pop(change.key_id, None)
            self._changes[change.key_id] = change
        self.version = version

    def all_changes(self) -> list[Change]:
        """Every key, revoked and expired ones among them, versions rising."""
        return list(self._changes.values())

    def changes_after(self, version: int) -> list[Change] | None:
        """What changed since `version`, versions rising; None if that is not known in full."""
        if not 0 < version <= self.version or version < self._complete_after:
            return None
        newest_first = takewhile(lambda change: change.version > version, reversed(self._changes.values()))
        return list(newest_first)[::-1]


def _check_rising(held: int, version: int, changes: Sequence[Change]) -> None:
    numbers = [held, *(change.version for change in changes)]
    if any(after <= before for before, after in pairwise(numbers)):
        raise ValueError("the changes do not rise from the held version")
    if version < numbers[-1]:
        raise ValueError("the version of the whole is below that of its last change")
