"""Whether what runs is what was tested: Python, the pinned packages, Envoy, PostgreSQL, Triton's packages."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from weirctl.doctor_finding import Finding, fault, ok, warning

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)\s*(?P<marker>;)?")
_LOWEST, _BELOW = (3, 11), (3, 13)
"""requires-python of pyproject.toml."""
_SHOWN = 5
_RUN_LIMIT_S = 20
_SET_UP = "make setup"


@dataclass
class Pin:
    """A package of requirements/runtime.txt."""

    versions: set[str]
    """More than one where they depend on the platform or on Python."""
    conditional: bool
    """Whether some platform does without it."""


@dataclass(frozen=True)
class Program:
    """What became of asking a program for its version."""

    name: str
    said: str
    """Its first line; empty where it did not run."""
    fault: str = ""


def pins(requirements: str) -> dict[str, Pin]:
    """What the lock file names."""
    found: dict[str, Pin] = {}
    for match in filter(None, map(_PIN.match, requirements.splitlines())):
        pin = found.setdefault(match["name"], Pin(set(), conditional=False))
        pin.versions.add(match["version"])
        pin.conditional |= match["marker"] is not None
    return found


def installed(names: Iterable[str]) -> dict[str, str]:
    """The versions of those that are there."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def python(version: tuple[int, int], shown: str) -> Finding:
    """Whether this Python is one that Weir is tested with."""
    if _LOWEST <= version < _BELOW:
        return ok("python", shown)
    return fault("python", f"{shown} is not supported", "use Python 3.11 or 3.12")


def packages(wanted: Mapping[str, Pin], there: Mapping[str, str]) -> Finding:
    """Whether the packages are those of the lock file."""
    missing = [name for name, pin in wanted.items() if name not in there and not pin.conditional]
    other = [
        f"{name} {there[name]} (wanted {' or '.join(sorted(pin.versions))})"
        for name, pin in wanted.items()
        if name in there and there[name] not in pin.versions
    ]
    if missing:
        return fault("packages", f"missing: {_some(missing)}", _SET_UP)
    if other:
        return warning("packages", f"not as locked: {_some(other)}", _SET_UP)
    if not wanted:
        return ok("packages", "no requirements/runtime.txt here to compare with")
    return ok("packages", f"all {len(wanted)} are as locked")


def program(one: Program) -> Finding:
    """Whether a program runs."""
    if one.fault:
        return fault(one.name, f"cannot be run: {one.fault}", _SET_UP)
    return ok(one.name, one.said)


def triton(*, needed: bool, prepared: bool) -> Finding:
    """Whether the local Triton's packages and models are there."""
    if not needed:
        return ok("triton", "no target needs the local one")
    if not prepared:
        return warning(
            "triton", "its packages and models are not set up yet", "`weir up` does it: 250 MB, once"
        )
    return ok("triton", "its packages and models are set up")


def ask_version(name: str, argv: Sequence[str], environment: Mapping[str, str]) -> Program:
    """Runs `argv`. Blocking, 20 s at most."""
    try:
        done = subprocess.run(
            argv, env=dict(environment), capture_output=True, text=True, timeout=_RUN_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Program(name, "", str(error))
    lines = [line.strip() for line in (done.stdout or done.stderr).splitlines() if line.strip()]
    first = lines[0] if lines else f"exit status {done.returncode}"
    return Program(name, "", first) if done.returncode else Program(name, first.rpartition("version: ")[2])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
