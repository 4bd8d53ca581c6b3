"""One `weir up` for one WEIR_HOME: a lock that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_NAME = "lock"


class HomeLocked(Exception):
    """Another `weir up` runs for this home; `pid` is its process, None where the file does not say."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(f"process {pid}" if pid else "another process")
        self.pid = pid


@contextlib.contextmanager
def hold(home: Path) -> Iterator[None]:
    """Holds the lock of `home`, which is made if missing; its file is removed at the end. Raises HomeLocked."""
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = home / _NAME
    descriptor = _open_locked(path)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def path_in(home: Path) -> Path:
    """The lock's file, which was last written when the holder took it."""
    return home / _NAME


def holder(home: Path) -> int | None:
    """The process of the `weir up` that runs for `home`; None if none does."""
    with contextlib.suppress(OSError):
        descriptor = os.open(home / _NAME, os.O_RDWR)
        try:
            _lock(descriptor)
        except HomeLocked as error:
            return error.pid
        finally:
            os.close(descriptor)
    return None


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor)
            # The holder before us may have removed the file between our opening and our locking it.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        text = os.pread(descriptor, 32, 0).strip()
        raise HomeLocked(int(text) if text.isdigit() else None) from error
