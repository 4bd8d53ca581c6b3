"""What follows a failed attempt: the table, row by row."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit.errors import (
    BodyTooLarge,
    ContentFiltered,
    ContextTooLong,
    InvalidRequest,
    NoHealthyTarget,
    RateLimited,
    UnsupportedParameter,
    UpstreamError,
    UpstreamStalled,
    UpstreamTimeout,
    UpstreamTruncated,
    WeirError,
)
from services.router.domain.target import RetryRule
from services.router.retry import Course, Tries, Verdict, judge

RULE = RetryRule()
SLOW = RateLimited("slow", retry_after=timedelta(seconds=2))


def verdict(error: WeirError, *, attempts: int = 1, left_s: float = math.inf, last: bool = False) -> Verdict:
    return judge(error, Tries(attempts), RULE, left_s, lambda: 0.0, last=last)


def failed(**details: str) -> UpstreamError:
    return UpstreamError("failed", details=details)


def test_retry_after_is_waited_for_once() -> None:
    """A wait that the target names and that fits is waited for, and then the same target is asked once more."""
    assert verdict(SLOW) == Verdict(Course.SAME, 2.0)
    told = Tries(2, waited_s=2.0, waited_as_told=True)
    assert judge(SLOW, told, RULE, math.inf, lambda: 0.0, last=True).course is Course.NEXT


@pytest.mark.parametrize(("after_s", "left_s"), [(4, math.inf), (2, 1.5)])
def test_retry_after_that_does_not_fit(after_s: float, left_s: float) -> None:
    """A wait over the retry budget, or over what the caller waits, is not begun."""
    error = RateLimited("slow", retry_after=timedelta(seconds=after_s))
    assert verdict(error, left_s=left_s).course is Course.NEXT


def test_rate_limit_without_a_wait_backs_off() -> None:
    """The waits double, up to the longest, and end after the rule's attempts."""
    error = RateLimited("slow")
    assert [verdict(error, attempts=attempts).wait_s for attempts in (1, 2)] == [0.25, 0.5]
    assert verdict(error, attempts=3).course is Course.NEXT


@given(draw=st.floats(0, 1, exclude_max=True), attempts=st.integers(1, 50))
def test_back_off_is_jittered_within_bounds(draw: float, attempts: int) -> None:
    """At least half of the step, never more than it, and never over the longest wait."""
    rule = RetryRule(attempts=100, budget=timedelta(days=1))
    wait_s = judge(RateLimited("slow"), Tries(attempts), rule, math.inf, lambda: draw, last=False).wait_s
    step_s = min(0.25 * 2.0 ** (attempts - 1), 1.5)
    assert step_s / 2 <= wait_s <= step_s


@pytest.mark.parametrize("error", [failed(status="500"), failed(status="503"), failed(), failed(sent="true")])
def test_errors_that_may_pass_are_tried_once_more(error: WeirError) -> None:
    """5xx, and a connection that broke before an answer."""
    assert verdict(error).course is Course.SAME
    assert verdict(error, attempts=2).course is Course.NEXT


@pytest.mark.parametrize(
    "error",
    [
        failed(status="401"), failed(status="404"), failed(status="200"), failed(sent="false"),
        failed(down="true"), UpstreamTimeout("silent"), UpstreamTruncated("cut"), UpstreamStalled("stalled"),
        NoHealthyTarget("unusable"), UnsupportedParameter("no such schema"), BodyTooLarge("20 MiB"),
        RateLimited("queue is full", details={"saturated": "true"}),
    ],
)  # fmt: skip
def test_errors_that_fail_over_at_once(error: WeirError) -> None:
    """What was silent, refuses us, talked nonsense, cannot be reached, is full or cannot do it has had its turn."""
    assert verdict(error).course is Course.NEXT


@pytest.mark.parametrize(
    "error", [failed(sent="false"), RateLimited("queue is full", details={"saturated": "true"})]
)
def test_last_target_gets_another_chance(error: WeirError) -> None:
    """Where nobody else is left, what could not be reached or was full is asked again after a while."""
    assert verdict(error, last=True).course is Course.SAME


def test_too_long_goes_to_a_larger_context() -> None:
    """The same model would refuse it again."""
    assert verdict(ContextTooLong("too long")).course is Course.LARGER


@pytest.mark.parametrize("error", [InvalidRequest("bad"), ContentFiltered("no")])
def test_the_requests_own_fault_ends_it(error: WeirError) -> None:
    """Neither retry nor fail-over."""
    assert verdict(error).course is Course.END


@pytest.mark.parametrize(
    "error",
    [
        failed(status="401", other_key="true"),
        RateLimited("slow", retry_after=timedelta(minutes=1), details={"other_key": "true"}),
    ],
)
def test_another_key_is_tried_at_once(error: WeirError) -> None:
    """Where the provider refused one of several keys, the next attempt uses another."""
    assert verdict(error) == Verdict(Course.SAME, 0.0)
    assert verdict(error, attempts=3).course is Course.NEXT


def test_budget_is_of_all_waits() -> None:
    """Waits of one request at one target add up."""
    tries = Tries(1, waited_s=2.9)
    assert judge(RateLimited("slow"), tries, RULE, math.inf, lambda: 0.0, last=True).course is Course.NEXT


def test_at_once_is_no_tight_loop() -> None:
    """A target that always says `retry-after: 0` is waited for a little, once; then the next one is asked."""
    error, tries = RateLimited("slow", retry_after=timedelta()), Tries(1)
    assert judge(error, tries, RULE, math.inf, lambda: 0.0, last=False) == Verdict(Course.SAME, 0.25)
    tries.waited_as_told = True
    assert judge(error, tries, RULE, math.inf, lambda: 0.0, last=True).course is Course.NEXT
