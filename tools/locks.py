"""The locks of requirements/ and triton_models/, read: which version of what, for whom, with which hashes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / "requirements" / "runtime.txt"
TRITON = ROOT / "triton_models" / "requirements.txt"
_PINNED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?==(?P<version>[^\s;*]+)\s*(;(?P<marker>.*))?")
_HASH = re.compile(r"\s--hash=sha256:([0-9a-f]{64})(?=\s|$)")


class LockError(ValueError):
    """A line of a lock that pins nothing."""


@dataclass(frozen=True, slots=True)
class Locked:
    """One version of one package."""

    name: str
    """In its canonical form."""
    version: str
    marker: Marker | None
    """Where it is installed; None: everywhere."""
    sha256: tuple[str, ...]
    """Of each of its files, in hexadecimal digits."""


def locks() -> list[Path]:
    """Every lock of the project."""
    return [*sorted((ROOT / "requirements").glob("*.txt")), TRITON]


def read(text: str) -> Iterator[Locked | LockError]:
    """What a lock says, requirement by requirement; an error in the place of one that names no version."""
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield _requirement(line)


def _requirement(line: str) -> Locked | LockError:
    requirement = line.partition(" --hash")[0].strip()
    pinned = _PINNED.fullmatch(requirement)
    if pinned is None:
        return LockError(f"{requirement}: names no version")
    marker = (pinned["marker"] or "").strip()
    return Locked(
        canonicalize_name(pinned["name"]),
        pinned["version"],
        Marker(marker) if marker else None,
        tuple(_HASH.findall(line)),
    )
