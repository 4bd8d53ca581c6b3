"""Keys by id, those of a snapshot in their wire form: a tenth of the memory of 100,000 keys, and of the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from gen.weir.auth.v1 import Key
from meshkit.packed import Packed

_UNPACKED: Final = 10_000
"""Keys that are kept as messages after they were looked up, about 1 KB each."""
_ID_TAG: Final = 0x0A
_SHORT: Final = 0x80
"""Lengths below it take one byte."""


class KeyCopy:
    """The keys of a snapshot and those that changed since."""

    def __init__(self) -> None:
        self._held: dict[str, Key | bytes] = {}
        self._unpack: Callable[[bytes], Key] = _lost

    def __len__(self) -> int:
        return len(self._held)

    def find(self, key_id: str) -> Key | None:
        """The key; the same object again while it is in use."""
        held = self._held.get(key_id)
        return self._unpack(held) if isinstance(held, bytes) else held

    def replace(self, keys: Sequence[Key]) -> None:
        """Takes a whole key set."""
        if isinstance(keys, Packed):
            unpack = keys.unpack
            self._unpack = lru_cache(_UNPACKED)(unpack)
            self._held = {_id_of(blob, unpack): blob for blob in keys.blobs}
        else:
            self._held = {key.id: key for key in keys}

    def put(self, key: Key) -> None:
        """Takes one key, new or altered."""
        self._held[key.id] = key


def _id_of(blob: bytes, unpack: Callable[[bytes], Key]) -> str:
    """The id is what every writer puts first; whoever did not is read as a whole."""
    if len(blob) > 1 and blob[0] == _ID_TAG and blob[1] < _SHORT:
        return blob[2 : 2 + blob[1]].decode()
    return unpack(blob).id


def _lost(blob: bytes) -> Key:
    raise AssertionError(f"{len(blob)} bytes of a snapshot that never came")
