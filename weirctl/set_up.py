"""Runs a set-up program to its end: its lines go to a human, and it ends with the supervisor or at a cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from weirctl.child import wrap
from weirctl.part import CannotStart

_SHOWN_LINES = 15


async def run_set_up(
    argv: Sequence[str], environment: Mapping[str, str], progress: Callable[[str], None]
) -> None:
    """Raises CannotStart with the program's last lines if it fails."""
    process = await asyncio.create_subprocess_exec(
        *wrap(argv, death_signal=signal.SIGKILL),
        env=dict(environment),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,
    )
    last: deque[str] = deque(maxlen=_SHOWN_LINES)
    try:
        if process.stdout is not None:
            async for line in process.stdout:
                last.append(line.decode(errors="replace").rstrip())
                progress(last[-1])
        status = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if status:
        raise CannotStart("\n".join(last) or f"the set-up ended with status {status}")
