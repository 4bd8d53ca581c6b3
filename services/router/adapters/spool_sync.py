"""Brings written segments to the disk in a thread of its own, a few milliseconds after they were written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from threading import Event, Lock, Thread

from meshkit.telemetry import Logger
from services.router.adapters.spool_segment import Segment

_RETRY = timedelta(seconds=1)


class BackgroundSync:
    """One thread for all spools of a process. It alone closes and removes segment files, after what must come first.

    Args:
        delay: from the first write that is not on disk to the start of its fdatasync.
    """

    def __init__(self, delay: timedelta, log: Logger) -> None:
        self._delay_s = delay.total_seconds()
        self._log = log
        self._lock = Lock()
        self._one_pass = Lock()
        self._dirty: list[Segment] = []
        self._retired: list[Segment] = []
        self._removed: list[Segment] = []
        self._wake = Event()
        self._stopping = Event()
        self.error: OSError | None = None
        """Why the last pass failed; None while the disk takes what it is given."""
        self._thread = Thread(target=self._run, name="spool-sync", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def written(self, segment: Segment) -> None:
        """Notes that `segment` was appended to. Cheap."""
        if not segment.dirty:
            segment.dirty = True
            with self._lock:
                self._dirty.append(segment)
            self._wake.set()

    def retire(self, segment: Segment) -> None:
        """Closes `segment` once it is on disk; it will not be appended to again."""
        with self._lock:
            self._retired.append(segment)
        self._wake.set()

    def remove(self, segments: Sequence[Segment]) -> None:
        """Removes the files in this order, once everything written until now is on disk."""
        with self._lock:
            self._removed.extend(segments)
        self._wake.set()

    def flush(self) -> None:
        """Returns when all that was handed over before is done. Raises OSError if the disk refuses."""
        self._pass()
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Ends the thread after a last pass."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._pass()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._stopping.wait(self._delay_s)
            self._wake.clear()
            self._pass()
            if self.error is not None:
                self._stopping.wait(_RETRY.total_seconds())
                self._wake.set()

    def _pass(self) -> None:
        with self._one_pass:
            with self._lock:
                dirty, self._dirty = self._dirty, []
                retired, self._retired = self._retired, []
                removed, self._removed = self._removed, []
            try:
                _sync(dirty)
                _remove(removed)
            except OSError as error:
                self._again(dirty, retired, removed, error)
                return
            for segment in retired:
                segment.close()
            self.error = None

    def _again(
        self, dirty: list[Segment], retired: list[Segment], removed: list[Segment], error: OSError
    ) -> None:
        if self.error is None:
            self._log.exception("the spool cannot be brought to disk; new attempts are refused", error)
        self.error = error
        with self._lock:
            for segment in dirty:
                segment.dirty = True
            self._dirty = list({id(segment): segment for segment in dirty + self._dirty}.values())
            self._retired = retired + self._retired
            self._removed = removed + self._removed


def _sync(dirty: Sequence[Segment]) -> None:
    new_folders = {segment.path.parent for segment in dirty if segment.is_new}
    for segment in dirty:
        segment.dirty = False  # before the sync: a write from now on asks for another one
        if segment.fd is not None:
            os.fdatasync(segment.fd)
    for folder in new_folders:
        sync_folder(folder)
    for segment in dirty:
        segment.is_new = False


def _remove(removed: Sequence[Segment]) -> None:
    for segment in removed:
        segment.path.unlink(missing_ok=True)
        segment.close()


def sync_folder(path: os.PathLike[str]) -> None:
    """Brings a folder's entries to disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
