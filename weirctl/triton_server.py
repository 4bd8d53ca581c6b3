"""How the local Triton is started, and what a hard exit of it leaves behind."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from weirctl.triton_prepare import prepare, python_library, site_packages
from weirctl.triton_settings import TritonSettings

__all__ = ["Command", "clean_shared_memory", "command", "prepare"]

CONTROL_HEADER = "weir-control"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel keeps POSIX shared memory; Triton's choice, not ours
# What only the holder of the token may do. Loading a model means running its code; the rest reads or changes the server.
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
        "model-repository": settings.models,
        "backend-directory": settings.backends,
        "backend-config": f"python,shm-region-prefix-name={settings.shared_memory_prefix}",
        "model-control-mode": "explicit",
        "load-model": settings.model_name,
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
    argv = (str(server), *(f"--{name}={value}" for name, value in options.items()))
    return Command(argv, _environment(settings), settings.root)


def clean_shared_memory(settings: TritonSettings) -> list[Path]:
    """Removes the regions that a hard exit of this home's server left, and returns them.

    Regions that some process still maps are left alone: they belong to a server that is alive, or to a stub that is
    about to end.
    """
    leftovers = list(_SHARED_MEMORY.glob(f"{settings.shared_memory_prefix}*"))
    if leftovers:
        mapped = _mapped_files()
        leftovers = [region for region in leftovers if str(region) not in mapped]
    for region in leftovers:
        region.unlink(missing_ok=True)
    return leftovers


def _environment(settings: TritonSettings) -> dict[str, str]:
    libraries = (python_library().parent, site_packages(settings) / "nvidia_pytriton.libs")
    return {
        # The stub finds its packages through the first `python3` on PATH.
        "PATH": f"{settings.venv / 'bin'}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": ":".join(str(library) for library in libraries),
        "HOME": str(settings.root),
        "LANG": "C.UTF-8",
        # Keeps compiled files out of the sources and makes later starts faster.
        "PYTHONPYCACHEPREFIX": str(settings.root / "pycache"),
    }


def _mapped_files() -> set[str]:
    mapped: set[str] = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        # Gone meanwhile, or another user's: then it is not ours to clean up after either.
        with contextlib.suppress(OSError), Path("/proc", process, "maps").open() as maps:
            mapped.update(line.split(maxsplit=5)[5].rstrip("\n") for line in maps if str(_SHARED_MEMORY) in line)
    return mapped
