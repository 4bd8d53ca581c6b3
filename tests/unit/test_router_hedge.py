"""Hedging on generators that the test controls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from services.router.hedge import MIN_SAMPLES, FirstTokens, first_of


class Source:
    """Gives its values when released, or fails."""

    def __init__(self, *values: int, error: Exception | None = None, released: bool = True) -> None:
        self.values = values
        self.error = error
        self.go = asyncio.Event()
        if released:
            self.go.set()
        self.begun = False
        self.closed = False

    async def generate(self) -> AsyncGenerator[int, None]:
        self.begun = True
        try:
            await self.go.wait()
            for value in self.values:
                yield value
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


async def taken(
    early: Source, late: Source | None, after_s: float = 0.01
) -> tuple[list[int], list[Exception]]:
    lost: list[Exception] = []

    def failed(error: Exception) -> bool:
        lost.append(error)
        return True

    racing = first_of(early.generate(), lambda: None if late is None else late.generate(), after_s, failed)
    async with aclosing(racing) as values:
        return [value async for value in values], lost


async def test_punctual_target_is_not_hedged() -> None:
    """A first token in time, and nobody else is asked."""
    early, late = Source(1, 2), Source(3)
    assert await taken(early, late, 60) == ([1, 2], [])
    assert not late.begun


async def test_late_target_is_overtaken() -> None:
    """The other one's token comes first: the late one is closed, its values never seen."""
    early, late = Source(1, released=False), Source(3, 4)
    assert await taken(early, late) == ([3, 4], [])
    assert early.closed


async def test_late_target_may_still_win() -> None:
    """Asked second and slower: the first one's token counts, the other is closed."""
    early, late = Source(1, released=False), Source(3, released=False)

    async def release() -> None:
        while not late.begun:  # noqa: ASYNC110 - the condition is plain state
            await asyncio.sleep(0)
        early.go.set()

    releasing = asyncio.create_task(release())
    assert await taken(early, late) == ([1], [])
    await releasing
    assert late.closed


async def test_failure_of_one_leaves_the_other() -> None:
    """The failure is told, and the other's answer is the answer."""
    early, late = Source(1, released=False), Source(error=ValueError("down"))
    lost: list[Exception] = []

    def failed(error: Exception) -> bool:
        lost.append(error)
        early.go.set()
        return True

    async with aclosing(first_of(early.generate(), late.generate, 0.01, failed)) as values:
        assert [value async for value in values] == [1]
    assert [str(error) for error in lost] == ["down"]


async def test_failure_of_both_is_the_last_ones() -> None:
    """Nobody is left: the last error is raised, the first was told."""
    early, late = Source(error=ValueError("early"), released=False), Source(error=ValueError("late"))
    lost: list[Exception] = []

    def failed(error: Exception) -> bool:
        lost.append(error)
        early.go.set()
        return True

    with pytest.raises(ValueError, match="early"):
        async with aclosing(first_of(early.generate(), late.generate, 0.01, failed)) as values:
            async for _ in values:
                pass
    assert [str(error) for error in lost] == ["late"]


async def test_nobody_to_hedge_with() -> None:
    """A late target without an alternative is waited for."""
    early = Source(1, released=False)
    asyncio.get_running_loop().call_later(0.05, early.go.set)
    assert await taken(early, None) == ([1], [])


async def test_cancelling_closes_both() -> None:
    """A client that goes away ends both attempts."""
    early, late = Source(1, released=False), Source(2, released=False)
    task = asyncio.create_task(taken(early, late))
    while not late.begun:  # noqa: ASYNC110 - the condition is plain state
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert early.closed
    assert late.closed


def test_lateness_needs_samples() -> None:
    """Before enough first tokens were seen nothing is late; then the 95th percentile counts."""
    seen = FirstTokens()
    for number in range(MIN_SAMPLES - 1):
        seen.add(float(number))
    assert seen.late_after_s() is None
    seen.add(float(MIN_SAMPLES - 1))
    assert seen.late_after_s() == MIN_SAMPLES - 1


async def test_error_that_ends_both() -> None:
    """What nothing is waited for is raised at once, and the other one closed."""
    early, late = Source(error=ValueError("final"), released=False), Source(1, released=False)
    racing = first_of(early.generate(), late.generate, 0.01, lambda _: False)

    async def read() -> None:
        async with aclosing(racing) as values:
            await anext(values)

    task = asyncio.create_task(read())
    while not late.begun:  # noqa: ASYNC110 - the condition is plain state
        await asyncio.sleep(0)
    early.go.set()
    with pytest.raises(ValueError, match="final"):
        await task
    assert late.closed


async def test_cancelling_while_the_loser_is_closed() -> None:
    """A client that goes away at that very moment is heeded: nothing is given, and both are closed."""
    closing, leave = asyncio.Event(), asyncio.Event()
    winner = Source(2)

    async def slow_to_close() -> AsyncGenerator[int, None]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            closing.set()
            await leave.wait()

    seen: list[int] = []

    async def read() -> None:
        async with aclosing(first_of(slow_to_close(), winner.generate, 0.01, lambda _: True)) as values:
            async for value in values:
                seen.append(value)  # noqa: PERF401 - what was seen before the cancellation counts

    task = asyncio.create_task(read())
    await closing.wait()
    task.cancel()
    await asyncio.sleep(0)
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not seen
    assert winner.closed
