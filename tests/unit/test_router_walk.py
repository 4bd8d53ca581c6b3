"""The way of one request through its plan."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

from meshkit.errors import (
    ContextTooLong,
    InvalidRequest,
    NoHealthyTarget,
    RateLimited,
    UpstreamError,
    WeirError,
)
from services.router.domain.plan import Plan, Step
from services.router.domain.target import RetryRule, TargetSpec
from services.router.walk import Turn, Walk
from tests.fakes.router import spec

ERROR = UpstreamError("down", details={"status": "503"})


def target(name: str, window: int | None = None, retry: RetryRule | None = None) -> TargetSpec:
    """A cloud target with a context window."""
    made = spec(name, local=False, retry=retry or RetryRule())
    return replace(made, capabilities=replace(made.capabilities, context_window=window))


def walk(*specs: TargetSpec, open_ones: str = "", most: int = 6) -> Walk:
    """Through these targets; those of `open_ones` have an open breaker."""
    plan = Plan("m", tuple(Step(one, "model m") for one in specs))
    return Walk(plan, lambda name: name not in open_ones, most, lambda: 0.0)


def way(through: Walk, error: WeirError = ERROR) -> list[str]:
    """The targets asked, one after the other, if each fails so."""
    asked = []
    while (turn := through.turn()) is not None:
        asked.append(turn.step.target.name)
        if not through.failed(turn, error, math.inf):
            break
    return asked


def test_retries_then_the_next() -> None:
    """A 503 is tried once more at each target."""
    assert way(walk(target("a"), target("b"))) == ["a", "a", "b", "b"]


def test_attempts_of_a_request_are_bounded() -> None:
    """However many targets there are; and no retry takes the attempt of a target that had none yet."""
    assert way(walk(*(target(name) for name in "abcdefgh"), most=6)) == ["a", "b", "c", "d", "e", "f"]
    assert way(walk(*(target(name) for name in "abcd"), most=6)) == ["a", "a", "b", "b", "c", "d"]


def test_the_requests_own_fault_ends_the_walk() -> None:
    """No other target is asked."""
    assert way(walk(target("a"), target("b")), InvalidRequest("bad")) == ["a"]


def test_open_breakers_are_passed_over() -> None:
    """They are asked when nobody else is left, and once only."""
    assert way(walk(target("a"), target("b"), open_ones="a")) == ["b", "b", "a"]
    assert way(walk(target("a"), open_ones="a")) == ["a"]


def test_a_breaker_that_opens_ends_the_retries() -> None:
    """What just opened its breaker, or failed as its probe, is not asked again at once."""
    admitted = {"a", "b"}
    plan = Plan("m", (Step(target("a"), "model m"), Step(target("b"), "model m")))
    through = Walk(plan, lambda name: name in admitted, 6, lambda: 0.0)
    turn = through.turn()
    assert turn is not None
    admitted.remove("a")
    through.failed(turn, ERROR, math.inf)
    assert way(through) == ["b", "b"]


def test_too_long_goes_to_a_larger_context() -> None:
    """Targets known to be no larger are passed over; unknown ones may do."""
    specs = (target("a", 8_000), target("b", 4_000), target("c", 8_000), target("d"), target("e", 16_000))
    assert way(walk(*specs), ContextTooLong("too long")) == ["a", "d", "e"]
    assert way(walk(target("a", 8_000), target("b", 8_000)), ContextTooLong("too long")) == ["a"]


def test_the_first_error_is_told_with_all_attempts() -> None:
    """The most useful one: what was wrong at the target that should have answered."""
    through = walk(target("a"), target("b"))
    way(through)
    error = through.exhausted()
    assert error.message == "down"
    assert error.details["attempts"] == ", ".join(["a: UPSTREAM_ERROR"] * 2 + ["b: UPSTREAM_ERROR"] * 2)


def test_nothing_to_walk() -> None:
    """A plan without a target."""
    through = walk()
    assert through.turn() is None
    assert isinstance(through.exhausted(), NoHealthyTarget)


def test_hedge_takes_the_next_target() -> None:
    """It counts as an attempt, and is not asked again when its turn would come."""
    through = walk(target("a"), target("b"), target("c"))
    first, hedge = through.turn(), through.hedge()
    assert isinstance(first, Turn)
    assert isinstance(hedge, Turn)
    assert hedge.step.target.name == "b"
    assert through.attempts == 2
    through.note(hedge, ERROR)
    through.failed(first, UpstreamError("gone", details={"sent": "false"}), math.inf)
    following = through.turn()
    assert following is not None
    assert following.step.target.name == "c"


def test_no_hedge_with_an_open_breaker() -> None:
    """Nor beyond the last target."""
    through = walk(target("a"), target("b"), open_ones="b")
    through.turn()
    assert through.hedge() is None
    alone = walk(target("a"))
    alone.turn()
    assert alone.hedge() is None


def test_told_to_come_back_at_once() -> None:
    """A target that limits the rate and names no time to wait does not use up the attempts of the others."""
    assert way(walk(target("a"), target("b")), RateLimited("slow", retry_after=timedelta())) == [
        "a",
        "a",
        "b",
        "b",
    ]
