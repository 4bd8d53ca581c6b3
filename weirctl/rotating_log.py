"""The log of one part: a file that is rotated by size, and its last lines at hand."""

from __future__ import annotations

from collections import deque
from pathlib import Path

LIMIT_BYTES = 10 * 1024 * 1024
KEPT_FILES = 3
_LONGEST_LINE_BYTES = 4_096


class RotatingLog:
    """Appends to `path`; at `limit_bytes` it becomes `path.1`, and so on up to `path.<kept>`.

    Args:
        path: the current file; its folder exists.
        limit_bytes: a file's size at which the next one begins.
        kept: how many full files are kept.
        tail: how many last lines are kept at hand.
    """

    def __init__(
        self, path: Path, *, limit_bytes: int = LIMIT_BYTES, kept: int = KEPT_FILES, tail: int = 10
    ) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._kept = kept
        self._tail: deque[bytes] = deque(maxlen=tail)
        self._unfinished = b""
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Appends `data`, which need not end with a line."""
        if self._file.tell() >= self._limit_bytes:
            self._rotate()
        self._file.write(data)
        *lines, rest = (self._unfinished + data).split(b"\n")
        self._tail.extend(lines)
        self._unfinished = rest[-_LONGEST_LINE_BYTES:]

    def last_lines(self) -> list[str]:
        """The last lines since `forget`, the newest last."""
        lines = [*self._tail, self._unfinished] if self._unfinished else list(self._tail)
        kept = lines[-(self._tail.maxlen or 0) :]
        return [line[-_LONGEST_LINE_BYTES:].decode(errors="replace") for line in kept]

    def forget(self) -> None:
        """The next life of the part begins: its last lines are none yet."""
        self._tail.clear()
        self._unfinished = b""

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._kept - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self.path.replace(self._numbered(1))
        self._file = self.path.open("ab", buffering=0)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
