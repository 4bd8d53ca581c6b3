"""One segment file of a spool: appended by one thread, read back by windows."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path

from services.router.adapters.spool_format import SALT_BYTES, Gap, Kind, Record, frame, scan

_NAME = re.compile(r"(?P<number>\d{8})-(?P<salt>[0-9a-f]{8})\.spool")
_WINDOW_BYTES = 128 * 1024
Write = Callable[[int, bytes], int]


class Segment:
    """A segment of which `size` bytes are whole records.

    Args:
        path: `<number>-<salt in hex>.spool`.
        fd: open for appending; None for a segment that is only read.
        write: os.write, or what stands in for it where a disk is to be full.
    """

    def __init__(self, path: Path, number: int, salt: bytes, fd: int | None, write: Write = os.write) -> None:
        self.path = path
        self.number = number
        self.salt = salt
        self.fd = fd
        self.size = 0
        self.open_bytes = 0
        """Payload bytes of the begins in it whose attempts have not ended."""
        self.dirty = False
        """True while written bytes may not be on disk (spool_sync)."""
        self.is_new = fd is not None
        """True until the folder's own entry for it is on disk (spool_sync)."""
        self.broken = False
        """True if a partial record could not be cut off; nothing more is appended."""
        self._write = write

    @classmethod
    def create(cls, folder: Path, number: int, write: Write = os.write) -> Segment:
        """A new, empty segment. Raises OSError."""
        salt = os.urandom(SALT_BYTES)
        path = folder / f"{number:08d}-{salt.hex()}.spool"
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return cls(path, number, salt, fd, write)

    @classmethod
    def existing(cls, path: Path) -> Segment | None:
        """The segment at `path`, to be read; None if the file's name is none of a segment."""
        match = _NAME.fullmatch(path.name)
        if match is None:
            return None
        segment = cls(path, int(match["number"]), bytes.fromhex(match["salt"]), None)
        segment.size = path.stat().st_size
        return segment

    def append(self, kind: Kind, payload: bytes) -> int:
        """Writes one record, whole or not at all; returns its bytes. Raises OSError (disk full)."""
        if self.fd is None:
            raise OSError(ENOSPC, "the segment is closed")
        data = frame(self.salt, kind, payload)
        try:
            written = self._write(self.fd, data)
        except OSError:
            self._cut_off()
            raise
        if written != len(data):
            self._cut_off()
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        self.size += written
        return written

    def _cut_off(self) -> None:
        try:
            if self.fd is not None:
                os.ftruncate(self.fd, self.size)
        except OSError:
            self.broken = True  # the next segment takes over; a reader sees a torn end

    def truncate(self, size: int) -> None:
        """Cuts a torn end off, durably. Raises OSError."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, size)
            os.fsync(fd)
        finally:
            os.close(fd)
        self.size = size

    def records(self, offset: int = 0) -> Iterator[Record | Gap]:
        """Records and gaps from `offset` on, their offsets counted from the file's begin. Raises OSError."""
        limit = self.size
        window = _WINDOW_BYTES
        with self.path.open("rb", buffering=0) as file:
            while offset < limit:
                file.seek(offset)
                data = file.read(min(window, limit - offset))
                if not data:
                    return  # the file is shorter than it was
                reaches_end = offset + len(data) >= limit
                base = offset
                for found in scan(data, self.salt):
                    if isinstance(found, Gap):
                        if found.end == len(data) and not reaches_end:
                            break  # perhaps only cut by the window
                        yield Gap(base + found.start, base + found.end, found.torn)
                    else:
                        yield found._replace(end=base + found.end)
                    offset = base + found.end
                # Nothing whole in this window: a larger one tells a long gap from a cut record.
                window = _WINDOW_BYTES if offset > base else 2 * window

    def close(self) -> None:
        """Closes the file; never raises."""
        fd, self.fd = self.fd, None
        if fd is not None:
            with suppress(OSError):
                os.close(fd)
