"""Runs before every part, as the part's process: ties it to the supervisor's life, drops root, becomes the part.

A program of its own rather than `preexec_fn`, because Python code between fork and exec can deadlock in a process
that has threads, as the supervisor does. It ends in exec, so the part is still the supervisor's direct child.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_NOT_STARTED = 127


def wrap(
    argv: Sequence[str], *, death_signal: signal.Signals, uid: int | None = None, gid: int | None = None
) -> list[str]:
    """The arguments that start `argv` as a child that gets `death_signal` when this process dies.

    Start it from a thread that lives as long as the process (the kernel watches the thread).
    With `uid` and `gid` it runs as that user, without supplementary groups.
    """
    user = "-" if uid is None else f"{uid}:{gid}"
    launcher = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    return [*launcher, str(os.getpid()), str(int(death_signal)), user, *argv]


def main(arguments: Sequence[str]) -> None:
    """Becomes the part; returns only by exiting with status 127 when it cannot."""
    parent, death_signal, user, *argv = arguments
    if user != "-":
        uid, gid = map(int, user.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After the change of user, which clears it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != int(parent):
        sys.exit(_NOT_STARTED)  # the supervisor died before it could be watched
    # What Python ignores, the part would ignore too.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, os.environ)  # noqa: S606 - this is what the program is for; no shell is wanted
    except OSError as error:
        sys.stderr.write(f"cannot start {argv[0]}: {error.strerror}\n")
        sys.exit(_NOT_STARTED)


if __name__ == "__main__":
    main(sys.argv[1:])
