"""Keeps one part running: start, readiness, crash, pause, start again, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from weirctl.child import wrap
from weirctl.part import CannotStart, NotReady, Part, State
from weirctl.rotating_log import RotatingLog

_SHOWN_CHARS = 300

Report = Callable[[str], None]
"""Takes a line for a human."""


@dataclass(frozen=True)
class Timing:
    """The pauses of supervision, in seconds."""

    first_pause_s: float = 0.2
    """After a crash; doubles with each further one."""
    longest_pause_s: float = 10.0
    forgiven_after_s: float = 30.0
    """Healthy for so long, and the next crash counts as the first."""
    poll_s: float = 0.1
    """Between two readiness probes."""
    progress_every_s: float = 5.0
    """Between two lines about a part that is not ready yet."""
    last_output_s: float = 1.0
    """How long the rest of a dead part's output is waited for; a grandchild may hold the pipe open."""


class PartRunner:
    """One part under supervision.

    Args:
        needs: the runners of the parts it depends on.
        changed: called whenever state, pid or restarts change.
    """

    tries_before_first_ready = 3
    """So often may a part crash before it was ever healthy; then `failed` is set."""

    def __init__(
        self,
        part: Part,
        needs: Sequence[PartRunner],
        log: RotatingLog,
        report: Report,
        changed: Callable[[], None],
        timing: Timing,
    ) -> None:
        self.part = part
        self.state = State.WAITING
        self.restarts = 0
        self.since_s = time.time()
        self.ready = asyncio.Event()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets CannotStart when the part never became healthy; never a result."""
        self._needs = needs
        self._log = log
        self._report = report
        self._changed = changed
        self._timing = timing
        self._process: Process | None = None
        self._output: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._was_ready = False
        self._healthy_since_s = math.inf

    @property
    def pid(self) -> int | None:
        """The running process."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def start(self) -> None:
        """Begins supervision; returns at once."""
        self._task = asyncio.get_running_loop().create_task(self._supervise(), name=self.part.name)

    async def stop(self) -> None:
        """Drains the part, ends it, and removes what it leaves. A second call does nothing."""
        if self.state is State.STOPPED:
            return
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.ready.clear()
        if self.pid is not None:
            self._set(State.STOPPING)
            await self.part.drain()
            await self._end()
        await self.part.after_end()
        self._log.close()
        self._set(State.STOPPED)

    def kill(self) -> None:
        """Ends the process and its group at once, and does not start it again."""
        if self._task is not None:
            self._task.cancel()
        if self.pid is not None:
            _kill_group(self.pid)

    async def _supervise(self) -> None:
        pause_s = self._timing.first_pause_s
        while True:
            for need in self._needs:
                await need.ready.wait()
            self._healthy_since_s = math.inf
            reason = await self._live()
            if time.monotonic() - self._healthy_since_s > self._timing.forgiven_after_s:
                pause_s = self._timing.first_pause_s
            self._crashed(reason, pause_s)
            if self.failed.done():
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._timing.longest_pause_s)

    async def _live(self) -> str:
        """One life of the process, from start to end; returns how it ended."""
        self._set(State.STARTING)
        self._log.forget()
        try:
            await self.part.before_start()
            process = await self._spawn()
            return await self._until_end(asyncio.ensure_future(process.wait()))
        except CannotStart as error:
            self._fail(str(error))
            return str(error)
        except Exception as error:  # noqa: BLE001 - a fault in a hook is a crash of its part, not of all
            await self._end()
            return repr(error)
        finally:
            self.ready.clear()

    async def _until_end(self, ended: asyncio.Future[int]) -> str:
        fault = await _first(ended, self._until_ready())
        if fault is None and not ended.done():
            self._was_ready = True
            self._healthy_since_s = time.monotonic()
            self._report(f"{self.part.name}: healthy, {time.time() - self.since_s:.1f} s")
            self._set(State.HEALTHY)
            self.ready.set()
            fault = await _first(ended, self.part.watch())
        if not ended.done():
            await self._end()
            return str(fault)
        await self._collect()
        status = ended.result()
        if status in self.part.fatal_statuses and not self._was_ready:
            raise CannotStart(self._with_last_lines(_describe(status)))
        return _describe(status)

    async def _until_ready(self) -> str | None:
        """None once the part is ready; why not, when its time is up."""
        begun_s = time.monotonic()
        told_s = begun_s
        while True:
            try:
                await self.part.probe()
            except NotReady as error:
                now_s = time.monotonic()
                if now_s - begun_s > self.part.ready_within_s:
                    return f"not ready after {self.part.ready_within_s:g} s: {error}"
                if now_s - told_s > self._timing.progress_every_s:
                    told_s = now_s
                    self._report(f"{self.part.name}: starting, {now_s - begun_s:.0f} s ({error})")
            else:
                return None
            await asyncio.sleep(self._timing.poll_s)

    async def _spawn(self) -> Process:
        own = self.part.argv() if callable(self.part.argv) else self.part.argv
        argv = wrap(own, death_signal=self.part.death_signal, uid=self.part.uid, gid=self.part.gid)
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which drains first.
        spawning = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *argv,
                env=dict(self.part.environment),
                cwd=self.part.directory,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                start_new_session=True,
            )
        )
        try:
            self._process = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            self._process = await spawning  # it runs, so it must be ended
            raise
        self._output = asyncio.ensure_future(self._copy_output(self._process))
        self._changed()
        return self._process

    async def _copy_output(self, process: Process) -> None:
        while process.stdout is not None and (data := await process.stdout.read(65_536)):
            self._log.write(data)

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            # Not process.send_signal: where the process is just dying, that takes its exit status from asyncio.
            os.kill(process.pid, self.part.stop_signal)
        try:
            async with asyncio.timeout(self.part.stop_within_s):
                await process.wait()
        except TimeoutError:
            self._report(f"{self.part.name}: still running after {self.part.stop_within_s:g} s: killed")
            _kill_group(process.pid)
            await process.wait()
        await self._collect()

    async def _collect(self) -> None:
        """What the dead process leaves: its children, and the rest of its output."""
        if self._process is not None:
            _kill_group(self._process.pid)
        if self._output is not None:
            await asyncio.wait({self._output}, timeout=self._timing.last_output_s)
            self._output.cancel()
            await asyncio.gather(self._output, return_exceptions=True)

    def _crashed(self, reason: str, pause_s: float) -> None:
        self.restarts += 1
        self._set(State.CRASHED)
        if not self._was_ready and self.restarts >= self.tries_before_first_ready:
            self._fail(self._with_last_lines(reason))
        if not self.failed.done():
            self._report(
                self._with_last_lines(f"{self.part.name} crashed ({reason}), again in {pause_s:g} s")
            )

    def _fail(self, reason: str) -> None:
        """Ends the tries, unless the part was healthy before: then what is wrong may pass."""
        if not self._was_ready and not self.failed.done():
            self.failed.set_exception(CannotStart(f"{self.part.name} did not start: {reason}"))

    def _with_last_lines(self, text: str) -> str:
        lines = self._log.last_lines()
        heading = f"{text}; the last lines of {self._log.path}:" if lines else text
        return "\n".join([heading, *(f"    {line[:_SHOWN_CHARS]}" for line in lines)])

    def _set(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self.since_s = time.time()
        self._changed()


async def _first(ended: asyncio.Future[int], other: Coroutine[Any, Any, str | None]) -> str | None:
    """Waits for the process's end or the other's result, and returns the latter if it came first."""
    task = asyncio.get_running_loop().create_task(other)
    try:
        await asyncio.wait((ended, task), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() and not ended.done() else None
    finally:
        task.cancel()


def _describe(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
