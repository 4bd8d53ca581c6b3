"""Before the start: which ports are taken, by whom, and what to change."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Of a line in /proc/net/tcp.
_LOCAL, _STATE, _INODE = 1, 3, 9
_LISTEN = "0A"
_HEX = 16


@dataclass(frozen=True)
class WantedPort:
    """A TCP port that a part will listen on."""

    host: str
    port: int
    purpose: str
    """What it is for, in words."""
    key: str
    """The key of weir.yaml that changes it."""


def faults(wanted: Iterable[WantedPort]) -> list[str]:
    """One line for each port that two parts want, and for each that cannot be had."""
    found: list[str] = []
    seen: dict[int, WantedPort] = {}
    for want in wanted:
        other = seen.setdefault(want.port, want)
        if other is not want:
            found.append(
                f"port {want.port} is wanted twice: for {other.purpose} ({other.key}) "
                f"and for {want.purpose} ({want.key})"
            )
        elif fault := _fault(want):
            found.append(fault)
    return found


def _fault(want: WantedPort) -> str | None:
    family = socket.AF_INET6 if ":" in want.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((want.host, want.port))
            probe.listen(1)
        except OSError as error:
            change = f"set {want.key} in weir.yaml"
            if error.errno != errno.EADDRINUSE:
                return (
                    f"cannot listen on {want.host}:{want.port} for {want.purpose}: {error.strerror}; {change}"
                )
            return f"port {want.port} for {want.purpose} is taken by {owner(want.port)}: stop it, or {change}"
    return None


def owner(port: int) -> str:
    """The process that listens on a TCP port, as far as this user may know it."""
    pid = holder(port)
    if pid is not None:
        with contextlib.suppress(OSError):
            return f"{_program(str(pid))} (process {pid})"
    return "a process that cannot be seen from here (another user's, or outside of this container)"


def holder(port: int) -> int | None:
    """The number of the process that listens on a TCP port; None if nobody does, or nobody that this user may see."""
    inodes = set(_listening_inodes(port))
    for process in filter(str.isdigit, (path.name for path in Path("/proc").iterdir())):
        # Gone meanwhile, or another user's.
        with contextlib.suppress(OSError):
            for entry in Path("/proc", process, "fd").iterdir():
                if entry.readlink().name in inodes:
                    return int(process)
    return None


def is_listening(port: int) -> bool:
    """Whether anybody listens on a TCP port of this machine, whosever it is."""
    return any(True for _ in _listening_inodes(port))


def _listening_inodes(port: int) -> Iterable[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[_STATE] == _LISTEN and int(fields[_LOCAL].rpartition(":")[2], _HEX) == port:
                    yield f"socket:[{fields[_INODE]}]"


def _program(process: str) -> str:
    words = Path("/proc", process, "cmdline").read_bytes().decode(errors="replace").split("\0")
    # The whole line could hold secrets: the program, and what Python or another interpreter runs.
    program = Path(words[0]).name or Path("/proc", process, "comm").read_text().strip()
    if program.startswith("python") and "-m" in words[:-1]:
        return f"{program} -m {words[words.index('-m') + 1]}"
    return program
