"""What /proc says of a process and its descendants."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_KIB = 1_024


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not collected does not."""
    with contextlib.suppress(OSError):
        return _stat(pid)[0] not in {"Z", "X"}
    return False


def memory_bytes(pid: int) -> int | None:
    """The proportional set size of a process and all its descendants; None if this user may not know it."""
    children = _children()
    sizes = [size for each in _tree(pid, children) if (size := _pss_bytes(each)) is not None]
    return sum(sizes) if sizes else None


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    return list(_tree(pid, _children()))


def _tree(pid: int, children: dict[int, list[int]]) -> Iterator[int]:
    yield pid
    for child in children.get(pid, ()):
        yield from _tree(child, children)


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for process in filter(str.isdigit, (path.name for path in Path("/proc").iterdir())):
        with contextlib.suppress(OSError):
            found[int(_stat(int(process))[1])].append(int(process))
    return found


def _stat(pid: int) -> list[str]:
    """The fields from the state on; the program's name before them may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _pss_bytes(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * _KIB
    return None
