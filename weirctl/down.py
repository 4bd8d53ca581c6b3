"""`weir down`: tells the running `weir up` to stop, and waits for its end."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time

from weirctl import home_lock, processes
from weirctl.config import home_of

_POLL_S = 0.05
_FAILED = 1


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 0 once nothing runs any more, also if nothing did; 1 if it does not end."""
    home = home_of(os.environ)
    pid = home_lock.holder(home)
    if pid is None:
        print(f"Weir is not up for {home}.")
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        if arguments.force:
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + arguments.within_s
    while home_lock.holder(home) == pid or processes.alive(pid):
        if time.monotonic() > deadline:
            print(
                f"Weir (process {pid}) still runs after {arguments.within_s:g} s; `weir down --force` cuts it short."
            )
            return _FAILED
        time.sleep(_POLL_S)
    print("Weir is down.")
    return 0
