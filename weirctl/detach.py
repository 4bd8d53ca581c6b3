"""`weir up --detach`: the same `weir up` as a daemon, and the wait until it is healthy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from weirctl.reporter import READY

_ROOT = Path(__file__).resolve().parents[1]
_CHUNK_BYTES = 4_096
_END_S = 60.0


def detach(arguments: Sequence[str], log_directory: Path) -> int:
    """Starts `weir up` with `arguments` in a session of its own and prints its lines until it is healthy.

    Returns the exit status: 0 once all is healthy, 1 if it ended before; its last lines then say why.
    """
    log_directory.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe()
    argv = [sys.executable, "-P", "-m", "weirctl", "up", *arguments, "--waiting-fd", str(write_end)]
    path = f"{_ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)
    # What it says goes through the pipe and into weir.log; this file is for what Python itself might say.
    with (log_directory / "weir.stderr").open("ab") as errors:
        daemon = subprocess.Popen(
            argv,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=(write_end,),
            start_new_session=True,
        )
    os.close(write_end)
    try:
        healthy = _follow(read_end)
    except KeyboardInterrupt:
        daemon.send_signal(signal.SIGTERM)
        _follow(read_end)
        daemon.wait(_END_S)
        return 1
    if healthy:
        print(f"Detached as process {daemon.pid}; log: {log_directory / 'weir.log'}; `weir down` ends it.")
        return 0
    return daemon.wait() or 1


def _follow(read_end: int) -> bool:
    """Prints what comes until the daemon is healthy (True) or has closed its end (False)."""
    while data := os.read(read_end, _CHUNK_BYTES):
        sys.stdout.write(data.removesuffix(READY).decode(errors="replace"))
        sys.stdout.flush()
        if data.endswith(READY):
            return True
    return False
