"""What follows a failed attempt: the same target again, another one, or the end. Pure; see docs/decisions/0008."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from meshkit.errors import (
    BodyTooLarge,
    ContextTooLong,
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

FAILS_OVER = (
    UpstreamError, UpstreamTimeout, UpstreamTruncated, UpstreamStalled, RateLimited, NoHealthyTarget, ContextTooLong,
    BodyTooLarge, UnsupportedParameter,
)  # fmt: skip
"""Errors that another target may not have. The request's own faults are not among them."""
_SERVER_ERRORS = range(500, 600)


class Course(Enum):
    """Where to go from a failure."""

    SAME = "same target"
    NEXT = "next target"
    LARGER = "a target with a larger context"
    END = "nowhere"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where to go, and how long to wait before. Seconds."""

    course: Course
    wait_s: float = 0.0


@dataclass(slots=True)
class Tries:
    """What one request did at one target so far."""

    attempts: int = 0
    waited_s: float = 0.0
    waited_as_told: bool = False
    """True once a `retry-after` was waited for."""


def judge(
    error: WeirError, tries: Tries, rule: RetryRule, left_s: float, draw: Callable[[], float], *, last: bool
) -> Verdict:
    """What follows `error`.

    Args:
        error: of the attempt that just ended.
        tries: of this request at this target, that attempt counted.
        rule: the target's.
        left_s: seconds until the caller waits no longer.
        draw: a random number in [0, 1).
        last: whether no other target is left.
    """
    if not isinstance(error, FAILS_OVER):
        return Verdict(Course.END)
    if isinstance(error, ContextTooLong):
        return Verdict(Course.LARGER)
    wait_s = _wait_s(error, tries, rule, draw, last=last)
    if wait_s is None or tries.waited_s + wait_s > rule.budget.total_seconds() or wait_s >= left_s:
        return Verdict(Course.NEXT)
    return Verdict(Course.SAME, wait_s)


def _wait_s(
    error: WeirError, tries: Tries, rule: RetryRule, draw: Callable[[], float], *, last: bool
) -> float | None:
    """Seconds until the same target is worth another attempt; None where it is not."""
    if error.details.get("other_key") == "true":
        # It was that key's doing, and the provider has another one.
        return None if tries.attempts >= rule.attempts else 0.0
    if isinstance(error, RateLimited):
        if error.retry_after is not None:
            # "At once" is not taken at its word: nobody is asked in a tight loop.
            told_s = max(error.retry_after.total_seconds(), _back_off_s(1, rule, draw))
            return None if tries.waited_as_told else told_s
        most = rule.attempts if last or error.details.get("saturated") != "true" else 1
    elif isinstance(error, UpstreamError) and _may_pass(error, last=last):
        most = rule.error_attempts
    else:
        # What was silent, broke off or talked nonsense has had its chance, and may have to be paid.
        return None
    return None if tries.attempts >= most else _back_off_s(tries.attempts, rule, draw)


def _may_pass(error: UpstreamError, *, last: bool) -> bool:
    """Whether the same target may answer the next time: it said so with a 5xx, or the connection broke early."""
    details = error.details
    if details.get("down") == "true":
        return False
    if details.get("sent") == "false":
        return last
    status = details.get("status", "")
    return not status or (status.isdecimal() and int(status) in _SERVER_ERRORS)


def _back_off_s(attempts: int, rule: RetryRule, draw: Callable[[], float]) -> float:
    span_s = min(rule.base.total_seconds() * 2.0 ** (attempts - 1), rule.longest.total_seconds())
    return span_s * (1.0 - draw() / 2.0)
