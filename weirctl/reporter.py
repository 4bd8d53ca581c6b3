"""Where `weir up` says what happens: the terminal, its log, and, when detached, whoever waits for it."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from weirctl.rotating_log import RotatingLog

READY = b"\0"
"""What ends the lines to the waiting process once all is healthy."""


class Reporter:
    """Takes lines for a human. A reader that is gone is no error.

    Args:
        waiting_fd: a pipe to the process that waits for the start; None in the foreground, where lines are printed.
    """

    def __init__(self, waiting_fd: int | None) -> None:
        self._log: RotatingLog | None = None
        self._waiting_fd = waiting_fd
        self._detached = waiting_fd is not None

    def say(self, text: str) -> None:
        """One line or several."""
        if self._log is not None:
            self._log.write(f"{text}\n".encode())
        self.show(text)

    def show(self, text: str) -> None:
        """The same, but not into the log: for what holds a secret."""
        if self._waiting_fd is not None:
            with contextlib.suppress(OSError):
                os.write(self._waiting_fd, f"{text}\n".encode())
        elif not self._detached:
            with contextlib.suppress(OSError):
                sys.stdout.write(f"{text}\n")
                sys.stdout.flush()

    def open_log(self, path: Path) -> None:
        """From now on everything goes into this file too. Only for the holder of the home's lock."""
        self._log = RotatingLog(path)

    def ready(self) -> None:
        """All is healthy: lets the waiting process go."""
        if self._waiting_fd is not None:
            with contextlib.suppress(OSError):
                os.write(self._waiting_fd, READY)
        self.close_waiting()

    def close_waiting(self) -> None:
        """Nothing more is said to the waiting process."""
        if self._waiting_fd is not None:
            os.close(self._waiting_fd)
            self._waiting_fd = None
