"""How the local Triton is started, and what a hard exit of it leaves behind."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from weirctl.triton_packages import python_library, site_packages
from weirctl.triton_prepare import STUB, prepare
from weirctl.triton_settings import TritonSettings

__all__ = ["Command", "clean_shared_memory", "close_shared_memory", "command", "prepare"]

CONTROL_HEADER = "weir-control"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel keeps POSIX shared memory; Triton's choice, not ours
# What only the holder of the token may do. Loading a model runs its code; the rest reads or changes the server.
_RESTRICTED = "model-repository,shared-memory,trace,logging"


@dataclass(frozen=True)
class Command:
    """What to start: a direct child, no shell. `environment` is complete: nothing is inherited."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    directory: Path


def command(settings: TritonSettings) -> Command:
    """How to start the server that `prepare` has set up. SIGTERM ends it within `drain_s` of its last request.

    Models are loaded by name, and loading is closed to anyone without the control token. The token is an argument,
    so on a machine with other users mount /proc with hidepid=2, or they can read it.
    """
    server = site_packages(settings) / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    options = {
        "model-repository": settings.repository,
        "backend-directory": settings.backends,
        "backend-config": f"python,shm-region-prefix-name={settings.shared_memory_prefix}",
        "model-control-mode": "explicit",
        "grpc-restricted-protocol": f"{_RESTRICTED}:{CONTROL_HEADER}={settings.control_token}",
        "http-restricted-api": f"{_RESTRICTED}:{CONTROL_HEADER}={settings.control_token}",
        "http-address": "127.0.0.1",
        "http-port": settings.http_port,
        "grpc-address": "127.0.0.1",
        "grpc-port": settings.grpc_port,
        "metrics-address": "127.0.0.1",
        "metrics-port": settings.metrics_port,
        "allow-gpu-metrics": "false",
        "exit-timeout-secs": settings.drain_s,
    }
    argv = (
        str(server),
        *(f"--load-model={model}" for model in settings.models),
        *(f"--{name}={value}" for name, value in options.items()),
    )
    return Command(argv, _environment(settings), settings.root)


def clean_shared_memory(settings: TritonSettings) -> list[Path]:
    """Removes the regions that a hard exit of this home's server left, and returns them.

    First it kills the stubs which that server left: such a stub notices, then hangs in its own clean-up and keeps the
    model in memory. Regions that a living tritonserver maps are left alone, and so are stubs that have their server.
    """
    for stub in _orphaned_stubs(settings):
        # May have ended meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.kill(stub, signal.SIGKILL)
    leftovers = list(_SHARED_MEMORY.glob(f"{settings.shared_memory_prefix}*"))
    if leftovers:
        mapped = _mapped_by_servers()
        leftovers = [region for region in leftovers if str(region) not in mapped]
    for region in leftovers:
        region.unlink(missing_ok=True)
    return leftovers


def close_shared_memory(settings: TritonSettings) -> None:
    """Takes the regions, through which prompts pass, from other users: Triton makes them readable for all."""
    for region in _SHARED_MEMORY.glob(f"{settings.shared_memory_prefix}*"):
        # May be going away with its model just now.
        with contextlib.suppress(FileNotFoundError):
            region.chmod(0o600)


def _environment(settings: TritonSettings) -> dict[str, str]:
    libraries = (python_library().parent, site_packages(settings) / "nvidia_pytriton.libs")
    return {
        # The stub finds its packages through the first `python3` on PATH.
        "PATH": f"{settings.venv / 'bin'}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": ":".join(str(library) for library in libraries),
        "HOME": str(settings.root),
        "LANG": "C.UTF-8",
    }


def _orphaned_stubs(settings: TritonSettings) -> list[int]:
    ours = str(settings.backends / "python" / STUB)
    orphans = []
    for process in Path("/proc").glob("[0-9]*"):
        # Gone meanwhile.
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_text().split("\0")
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            # A stub's sixth argument is the process id of the server that started it.
            if arguments[0] == ours and arguments[5:6] != [parent]:
                orphans.append(int(process.name))
    return orphans


def _mapped_by_servers() -> set[str]:
    mapped: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        # Gone meanwhile, or another user's, whose regions only that user can remove.
        with contextlib.suppress(OSError):
            if (process / "comm").read_text() == "tritonserver\n":
                lines = (process / "maps").read_text().splitlines()
                mapped.update(line.split(maxsplit=5)[5] for line in lines if str(_SHARED_MEMORY) in line)
    return mapped
