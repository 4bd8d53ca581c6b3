"""What an attack leaves in a running mesh: memory at its peak, errors in the logs, processes that are others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.harness.stronghold import Stronghold

ON_THE_WAY = ("edge", "router", "cloud_adapter")
"""Parts that a request passes."""
_MIB = 1024 * 1024
_FORGET_PEAK = "5"


class Memory:
    """How much more the parts on a request's way ever held since this was made, in MiB."""

    def __init__(self, stronghold: Stronghold) -> None:
        pids = {name: pid for name, pid in stronghold.weir.pids().items() if name.startswith(ON_THE_WAY)}
        self._status = {name: Path(f"/proc/{pid}/status") for name, pid in pids.items()}
        for pid in pids.values():
            Path(f"/proc/{pid}/clear_refs").write_text(_FORGET_PEAK, encoding="ascii")
        self._before = {name: self._mib(name, "VmRSS") for name in pids}

    def peak_mib(self) -> Mapping[str, float]:
        """By part."""
        return {name: self._mib(name, "VmHWM") - before for name, before in self._before.items()}

    def _mib(self, name: str, field: str) -> float:
        lines = self._status[name].read_text(encoding="ascii").splitlines()
        (kib,) = [int(line.split()[1]) for line in lines if line.startswith(f"{field}:")]
        return kib * 1024 / _MIB


class Logs:
    """What the parts of a mesh write from now on."""

    def __init__(self, stronghold: Stronghold) -> None:
        self._folder = stronghold.weir.home / "log"
        self._read = {file.name: file.stat().st_size for file in self._folder.glob("*.log")}

    def errors(self) -> list[str]:
        """Lines at level error, and those of a crash."""
        return [line for line in self._lines() if _is_error(line)]

    def _lines(self) -> Iterator[str]:
        for file in self._folder.glob("*.log"):
            with file.open("rb") as log:
                log.seek(self._read.get(file.name, 0))
                yield from log.read().decode(errors="replace").splitlines()


def _is_error(line: str) -> bool:
    if line.startswith("{"):
        document: dict[str, object] = json.loads(line)
        return document.get("level") == "error"
    return "[error]" in line or "[critical]" in line or line.startswith("Traceback")
