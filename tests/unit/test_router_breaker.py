"""The breaker of one target, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import timedelta

import pytest

from meshkit.errors import InvalidRequest, RateLimited, UpstreamError, UpstreamTimeout, WeirError
from services.router.breaker import Breaker, BreakerState
from services.router.domain.target import BreakerRule
from services.router.guard import DeadlinePassed
from services.router.ports import Piece
from tests.fakes.router import FakeClock

RULE = BreakerRule(window=timedelta(seconds=10), failures=3, probe=timedelta(seconds=5))
TOKEN = Piece(text="a")


class Watched:
    """A breaker, and attempts that end as told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.breaker = Breaker(RULE, self.clock, timedelta(seconds=8))

    async def attempt(self, error: Exception | None = None, *, tokens: int = 0) -> None:
        async def pieces() -> AsyncGenerator[Piece, None]:
            for _ in range(tokens):
                yield TOKEN
            if error is not None:
                raise error

        with suppress(WeirError):
            async with aclosing(self.breaker.watched(pieces())) as watched:
                async for _ in watched:
                    pass

    async def fail(self, times: int) -> None:
        for _ in range(times):
            await self.attempt(UpstreamError("down"))

    def later(self, seconds: float) -> None:
        self.clock.elapsed_s += seconds


async def test_failures_open_it() -> None:
    """So many failures within the window, and it is left alone."""
    watched = Watched()
    await watched.fail(2)
    assert watched.breaker.admits()
    await watched.fail(1)
    assert not watched.breaker.admits()
    assert watched.breaker.state is BreakerState.OPEN


async def test_old_failures_do_not_count() -> None:
    """What is further back than the window is forgotten."""
    watched = Watched()
    await watched.fail(2)
    watched.later(11)
    await watched.fail(2)
    assert watched.breaker.admits()


async def test_failures_among_many_answers_do_not_open_it() -> None:
    """A busy target that fails now and then stays: failures must be at least half."""
    watched = Watched()
    for _ in range(10):
        await watched.attempt(tokens=1)
    await watched.fail(9)
    assert watched.breaker.admits()
    await watched.fail(1)
    assert not watched.breaker.admits()


@pytest.mark.parametrize("error", [RateLimited("slow"), InvalidRequest("bad"), DeadlinePassed()])
async def test_what_is_not_the_targets_failure(error: WeirError) -> None:
    """Saturation, a bad request and a hasty caller do not open it."""
    watched = Watched()
    for _ in range(10):
        await watched.attempt(error)
    assert watched.breaker.admits()


async def test_down_opens_it_at_once() -> None:
    """A target known to be down needs no second failure."""
    watched = Watched()
    await watched.attempt(UpstreamError("dead", details={"down": "true"}))
    assert not watched.breaker.admits()


async def test_one_probe_at_a_time() -> None:
    """After the probe interval one request is let through; until its first token nobody else is."""
    watched = Watched()
    await watched.fail(3)
    watched.later(5)
    assert watched.breaker.admits()
    seen: list[bool] = []

    async def looks() -> AsyncGenerator[Piece, None]:
        seen.append(watched.breaker.admits())
        yield TOKEN

    async for _ in watched.breaker.watched(looks()):
        pass
    assert seen == [False]
    assert watched.breaker.admits()


async def test_failed_probe_keeps_it_open() -> None:
    """Another interval, then another probe."""
    watched = Watched()
    await watched.fail(3)
    watched.later(5)
    await watched.attempt(UpstreamTimeout("silent"))
    assert not watched.breaker.admits()
    watched.later(4.9)
    assert not watched.breaker.admits()
    watched.later(0.1)
    assert watched.breaker.admits()


async def test_answered_probe_closes_it_and_forgets() -> None:
    """It is back whole: one more failure does not open it again."""
    watched = Watched()
    await watched.fail(3)
    watched.later(5)
    await watched.attempt(tokens=1)
    await watched.fail(2)
    assert watched.breaker.admits()


async def test_saturated_probe_closes_it() -> None:
    """A target that says that it is asked too often is alive."""
    watched = Watched()
    await watched.fail(3)
    watched.later(5)
    await watched.attempt(RateLimited("slow"))
    assert watched.breaker.state is BreakerState.CLOSED


async def test_cancelled_probe_tells_nothing() -> None:
    """The next request is the probe."""
    watched = Watched()
    await watched.fail(3)
    watched.later(5)
    await watched.attempt(DeadlinePassed())
    assert watched.breaker.admits()
    assert watched.breaker.state is BreakerState.PROBING


async def test_failure_after_the_first_token_counts() -> None:
    """A target that begins answers and breaks them is broken too."""
    watched = Watched()
    for _ in range(3):
        await watched.attempt(UpstreamError("cut"), tokens=1)
    assert not watched.breaker.admits()


async def test_probe_that_answers_is_over() -> None:
    """Its answer may take minutes yet: where the target breaks again meanwhile, the next probe need not wait for it."""
    watched = Watched()
    await watched.fail(3)
    watched.later(5)

    async def long() -> AsyncGenerator[Piece, None]:
        yield TOKEN
        yield TOKEN

    async with aclosing(watched.breaker.watched(long())) as probe:
        await anext(probe)
        await watched.fail(3)
        assert watched.breaker.state is BreakerState.OPEN
        watched.later(5)
        assert watched.breaker.admits()


async def test_silent_probe_keeps_others_away_for_a_while() -> None:
    """A whole answer may be silent for many minutes; the target may be back long before. Its end is not the next's."""
    watched = Watched()
    await watched.fail(3)
    watched.later(5)
    held = asyncio.Event()

    async def silent() -> AsyncGenerator[Piece, None]:
        await held.wait()
        yield TOKEN

    async def ask() -> None:
        async with aclosing(watched.breaker.watched(silent())) as pieces:
            await anext(pieces)

    first = asyncio.create_task(ask())
    await asyncio.sleep(0)
    watched.later(7.9)
    assert not watched.breaker.admits()
    watched.later(0.1)
    assert watched.breaker.admits()
    second = asyncio.create_task(ask())
    await asyncio.sleep(0)
    assert not watched.breaker.admits()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not watched.breaker.admits()
    held.set()
    await second
    assert watched.breaker.state is BreakerState.CLOSED
