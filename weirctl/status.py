"""`weir status`: every part, as the supervisor and the machine see it."""

from __future__ import annotations

import argparse
import os
import socket
import time

from weirctl import processes, table
from weirctl.config import home_of
from weirctl.mesh_clients import NotUp, state_of
from weirctl.part import State
from weirctl.state_file import PartState

_HEADING = ("PART", "STATE", "PID", "RESTARTS", "SINCE", "MEMORY", "ADDRESS")
_RIGHT = frozenset({2, 3, 4, 5})
_CONNECT_LIMIT_S = 0.5
_MIB = 1_048_576
_FAILED = 1
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - every command is called alike
    """The exit status: 0 if all parts are healthy, 1 otherwise."""
    home = home_of(os.environ)
    try:
        state = state_of(home)
    except NotUp as error:
        print(error)
        return _FAILED
    states = [_live(part) for part in state.parts]
    rows = [_row(part, seen) for part, seen in zip(state.parts, states, strict=True)]
    print(f"Weir, process {state.pid}: {state.endpoint}/v1\n")
    print(table.render(_HEADING, rows, right=_RIGHT))
    return 0 if all(seen == State.HEALTHY for seen in states) else _FAILED


def _row(part: PartState, seen: str) -> tuple[str, ...]:
    memory = processes.memory_bytes(part.pid) if part.pid is not None else None
    return (
        f"{part.name} [{part.note}]" if part.note else part.name,
        seen,
        str(part.pid or "-"),
        str(part.restarts),
        span(time.time() - part.since_s),
        "-" if memory is None else f"{memory / _MIB:.0f} MiB",
        part.address,
    )


def _live(part: PartState) -> str:
    """The state as the supervisor wrote it, unless the machine knows better."""
    if part.state != State.HEALTHY:
        return part.state
    if part.pid is None or not processes.alive(part.pid):
        return "gone"
    return part.state if _listens(part.address) else "not listening"


def _listens(address: str) -> bool:
    if address.startswith("unix:"):
        # A folder of sockets stands for PostgreSQL, which its own watch looks after.
        return os.path.exists(address.removeprefix("unix:"))  # noqa: PTH110 - a str at hand
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_CONNECT_LIMIT_S):
            return True
    except OSError:
        return False


def span(seconds: float) -> str:
    """A span in its largest whole unit, such as 42s, 3m, 5h, 2d."""
    for size, unit in _SPANS:
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
