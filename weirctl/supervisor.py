"""Starts parts in the order of their needs, keeps them running, and ends them in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from graphlib import TopologicalSorter
from pathlib import Path

from weirctl.part import CannotStart, Part
from weirctl.part_runner import PartRunner, Report, Timing
from weirctl.rotating_log import RotatingLog


class Supervisor:
    """All parts of one mesh. Make it inside a running event loop.

    Args:
        parts: in any order; every name in a `depends_on` is among them, and no two need each other.
        log_directory: gets `<part>.log`; it exists.
        report: gets lines for a human: progress, crashes.
        changed: called whenever anything of `runners` changes.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        log_directory: Path,
        report: Report,
        *,
        changed: Callable[[], None] = lambda: None,
        timing: Timing | None = None,
    ) -> None:
        runners: dict[str, PartRunner] = {}
        by_name = {part.name: part for part in parts}
        order = TopologicalSorter({part.name: part.depends_on | part.outlived_by for part in parts})
        for name in order.static_order():
            part = by_name[name]
            needs = [runners[needed] for needed in sorted(part.depends_on)]
            log = RotatingLog(log_directory / f"{name}.log")
            runners[name] = PartRunner(part, needs, log, report, changed, timing or Timing())
        self.runners = {part.name: runners[part.name] for part in parts}
        """By name, in the order of `parts`."""

    async def start(self) -> None:
        """Returns when every part was healthy. Raises CannotStart at the first failure; the caller then stops all."""
        for runner in self.runners.values():
            runner.start()
        ready = asyncio.ensure_future(self._all_ready())
        failures = [runner.failed for runner in self.runners.values()]
        try:
            await asyncio.wait({ready, *failures}, return_when=asyncio.FIRST_COMPLETED)
            for failure in failures:
                if failure.done():
                    failure.result()
        finally:
            ready.cancel()
            await asyncio.gather(ready, return_exceptions=True)

    async def _all_ready(self) -> None:
        for runner in self.runners.values():
            await runner.ready.wait()

    async def stop(self) -> None:
        """Ends every part, each after those that depend on it. A second call does nothing."""
        ended = {name: asyncio.Event() for name in self.runners}

        async def end(name: str, runner: PartRunner) -> None:
            for other in self.runners.values():
                if name in other.part.depends_on | other.part.outlived_by:
                    await ended[other.part.name].wait()
            try:
                await runner.stop()
            finally:
                ended[name].set()

        results = await asyncio.gather(
            *(end(name, runner) for name, runner in self.runners.items()), return_exceptions=True
        )
        for runner in self.runners.values():
            if not runner.failed.cancel() and not runner.failed.cancelled():
                runner.failed.exception()  # seen; else asyncio complains of it
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def kill(self) -> None:
        """Ends every process at once; `stop`, running or called afterwards, then has nothing to wait for."""
        for runner in self.runners.values():
            runner.kill()


__all__ = ["CannotStart", "Report", "Supervisor", "Timing"]
