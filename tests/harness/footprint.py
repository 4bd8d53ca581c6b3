"""What a running Weir has on its machine, and what of it is left after its end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.harness.running_weir import RunningWeir
from weirctl import home_lock, processes
from weirctl.triton_settings import TritonSettings

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel keeps POSIX shared memory


@dataclass(frozen=True)
class Footprint:
    """Taken while it runs."""

    home: Path
    pids: frozenset[int]
    """The supervisor and everything below it."""
    ports: frozenset[int]
    """On which one of these listens; others may be anybody's, now or later."""

    @classmethod
    def of(cls, weir: RunningWeir) -> Footprint:
        """Of a Weir that is up."""
        assert weir.process is not None
        supervisor = psutil.Process(weir.process.pid)
        pids = {supervisor.pid, *(child.pid for child in supervisor.children(recursive=True))}
        ports = frozenset(port for pid in pids for port in _ports(pid))
        assert weir.document["ports"]["edge"] in ports
        return cls(weir.home, frozenset(pids), ports)

    def processes_left(self) -> list[str]:
        """Those that still run."""
        return [_named(pid) for pid in sorted(self.pids) if processes.alive(pid)]

    def left(self) -> list[str]:
        """Everything that should be gone, in words."""
        return [
            *(f"process {name}" for name in self.processes_left()),
            *(f"shared memory {region.name}" for region in SHARED_MEMORY.glob(f"{_prefix(self.home)}*")),
            *(f"socket {path}" for path in self.home.rglob("*") if path.is_socket()),
            *(
                f"file {path}"
                for name in ("lock", "state.json", "run")
                if (path := self.home / name).exists()
            ),
            *([f"lock of process {holder}"] if (holder := home_lock.holder(self.home)) else []),
            *(f"port {port}" for port in sorted(self.ports) if _is_taken(port)),
        ]


def _ports(pid: int) -> Iterator[int]:
    with suppress(psutil.NoSuchProcess):  # a command that ended meanwhile
        for connection in psutil.Process(pid).net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                yield connection.laddr.port


def _prefix(home: Path) -> str:
    return TritonSettings(home=home).shared_memory_prefix


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return True
    return False


def _named(pid: int) -> str:
    with suppress(psutil.Error):
        return f"{pid} {' '.join(psutil.Process(pid).cmdline())[:120]}"
    return str(pid)
