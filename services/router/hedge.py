"""Hedging: when a target is later than it nearly always is, the next one is asked too, and the first token wins."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Generic, TypeVar

T = TypeVar("T")

MIN_SAMPLES = 20
"""First tokens that must have been seen before a target is called late."""
MAX_SAMPLES = 200
"""So many of the latest count."""
_LATE_SHARE = 0.95


class FirstTokens:
    """How long one target took to its first tokens of late. Seconds."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=MAX_SAMPLES)

    def add(self, seconds: float) -> None:
        """Notes one."""
        self._latest.append(seconds)

    def late_after_s(self) -> float | None:
        """The 95th percentile; None while too few are known."""
        if len(self._latest) < MIN_SAMPLES:
            return None
        return sorted(self._latest)[int(len(self._latest) * _LATE_SHARE)]


class _Runner(Generic[T]):
    """A generator whose first value is being waited for."""

    def __init__(self, source: AsyncGenerator[T, None]) -> None:
        self.source = source
        self.first: asyncio.Future[T] = asyncio.ensure_future(anext(source))

    async def stop(self) -> None:
        """Cancels what runs and closes the generator, which settles its attempt."""
        self.first.cancel()
        if not self.first.done():
            # Awaiting it would take a cancellation of ours for its own, and swallow it.
            await asyncio.wait([self.first])
        if not self.first.cancelled():
            self.first.exception()  # seen by whom it concerns
        await self.source.aclose()


async def first_of(
    early: AsyncGenerator[T, None],
    late: Callable[[], AsyncGenerator[T, None] | None],
    after_s: float,
    failed: Callable[[Exception], bool],
) -> AsyncGenerator[T, None]:
    """The values of whichever generator gives one first; the other is cancelled and closed.

    Args:
        early: begins at once.
        late: makes the other one, asked for after `after_s`; None if there is none.
        after_s: seconds.
        failed: is told of the first error, if the other generator still runs, and whether to wait for that; the last
            one's error is raised, or the one that nothing was waited for.
    """
    async with AsyncExitStack() as exits:
        runners = [_Runner(early)]
        exits.push_async_callback(runners[0].stop)
        await asyncio.wait([runners[0].first], timeout=after_s)
        if not runners[0].first.done() and (other := late()) is not None:
            runners.append(_Runner(other))
            exits.push_async_callback(runners[1].stop)
        winner = await _winner(runners, failed)
        for runner in runners:
            if runner is not winner:
                await runner.stop()
        try:
            value = winner.first.result()
        except StopAsyncIteration:
            return
        yield value
        async for value in winner.source:
            yield value


async def _winner(runners: list[_Runner[T]], failed: Callable[[Exception], bool]) -> _Runner[T]:
    """The first that has a value; the last one that is left, whatever it has."""
    running = list(runners)
    while len(running) > 1:
        await asyncio.wait([runner.first for runner in running], return_when=asyncio.FIRST_COMPLETED)
        for runner in [runner for runner in running if runner.first.done()]:
            error = runner.first.exception()
            if error is None:
                return runner
            if len(running) > 1 and isinstance(error, Exception):
                if not failed(error):
                    return runner
                running.remove(runner)
    await asyncio.wait([running[0].first])
    return running[0]
