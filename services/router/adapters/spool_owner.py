"""Who owns a spool's folder: the process that holds its lock, and nobody once that process is gone."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path

from meshkit.ids import uuid7
from meshkit.telemetry import Logger

_NAME = re.compile(r"[0-9a-f]{32}")


class Owned:
    """A locked folder. The kernel drops the lock when the process ends, however it ends."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    def release(self, log: Logger, *, remove: bool) -> None:
        """Gives the lock up; with `remove`, removes the folder first, which must hold no segment any more."""
        try:
            if remove:
                self._remove(log)
        except OSError as error:
            log.exception("a spool's folder cannot be removed", error, folder=self.path.name)
        finally:
            os.close(self._fd)

    def _remove(self, log: Logger) -> None:
        if any(self.path.iterdir()):
            # Else it would be adopted, found without entries and left again for ever.
            self.path.rename(self.path.with_suffix(".foreign"))
            log.warning("foreign files in a spool's folder; renamed", folder=self.path.name)
        else:
            self.path.rmdir()


def create(root: Path) -> Owned:
    """A new folder in `root`, locked. Raises OSError."""
    while True:
        path = root / uuid7().hex
        path.mkdir(mode=0o700)
        owned = lock(path)
        if owned is not None:
            return owned  # else an adopter found it before the lock was on, and removes it: try another


def lock(path: Path) -> Owned | None:
    """The folder, if nobody else has it and it still exists."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.stat()):
            return Owned(path, fd)
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def folders(root: Path) -> list[Path]:
    """Every spool folder in `root`, the oldest first."""
    with suppress(FileNotFoundError):
        return sorted(path for path in root.iterdir() if _NAME.fullmatch(path.name))
    return []
