"""`<WEIR_HOME>/state.json`: what the running `weir up` tells the other commands."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

_NAME = "state.json"


class PartState(msgspec.Struct, frozen=True):
    """One part."""

    name: str
    state: str
    pid: int | None
    restarts: int
    since_s: float
    """When `state` began: seconds since 1970."""
    address: str
    note: str = ""


class MeshState(msgspec.Struct, frozen=True):
    """The whole mesh."""

    pid: int
    """The supervisor's process."""
    endpoint: str
    """Where clients ask: `http://host:port`."""
    parts: list[PartState]


def write(home: Path, state: MeshState) -> None:
    """Replaces the file as a whole: a reader sees the old one or the new one."""
    unfinished = home / f"{_NAME}.new"
    unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    unfinished.replace(home / _NAME)


def read(home: Path) -> MeshState | None:
    """What was written last; None if there is nothing that can be read."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((home / _NAME).read_bytes(), type=MeshState)
    return None


def remove(home: Path) -> None:
    """Removes the file."""
    for name in (_NAME, f"{_NAME}.new"):
        (home / name).unlink(missing_ok=True)
