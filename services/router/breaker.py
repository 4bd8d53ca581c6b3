"""The breaker of one target: leaves it alone while it fails, and lets one request through now and then to see.

Each router process has its own. What counts as a failure: everything that is the target's doing. A target that limits
the rate is saturated, not broken; one that refuses a request for what is in it answered.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from enum import Enum

from meshkit.errors import (
    NoHealthyTarget,
    UpstreamError,
    UpstreamStalled,
    UpstreamTimeout,
    UpstreamTruncated,
    WeirError,
)
from services.router.domain.target import BreakerRule
from services.router.guard import DeadlinePassed
from services.router.ports import Clock, Piece

_FAILURES = (UpstreamError, UpstreamTimeout, UpstreamTruncated, UpstreamStalled, NoHealthyTarget)
_SLICES = 10
"""The window moves on in so many steps."""


class BreakerState(Enum):
    """How a target is treated."""

    CLOSED = "closed"
    """It is asked."""
    OPEN = "open"
    """It is left alone."""
    PROBING = "probing"
    """It is left alone but for one request, which is under way or may be the next."""


class Breaker:
    """Counts what one target does. Times are monotonic seconds of `clock`.

    Args:
        silence: a probe that gave no sign for so long keeps the next one away no longer: a whole answer may take many
            minutes.
    """

    def __init__(self, rule: BreakerRule, clock: Clock, silence: timedelta) -> None:
        self._rule = rule
        self._clock = clock
        self._silence = silence
        self._slice_s = rule.window.total_seconds() / _SLICES
        self._counts: deque[tuple[float, int, int]] = deque(maxlen=_SLICES)
        """(beginning, answers, failures) of each slice of the window."""
        self._probe_at_s = math.inf
        """When the next probe is due; infinite while closed."""
        self._probe: object | None = None
        """The attempt that is the probe under way."""
        self._probe_until_s = math.inf
        """When it has been silent for too long."""

    @property
    def state(self) -> BreakerState:
        """Now."""
        if self._probe_at_s == math.inf:
            return BreakerState.CLOSED
        due = self._probing() or self._clock.monotonic() >= self._probe_at_s
        return BreakerState.PROBING if due else BreakerState.OPEN

    def admits(self) -> bool:
        """Whether a request may be sent there now."""
        return self.state is BreakerState.CLOSED or (
            not self._probing() and self._clock.monotonic() >= self._probe_at_s
        )

    async def watched(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        """The pieces of one guarded attempt as they are, their outcome counted; `pieces` is closed at the end.

        While the breaker is open this attempt is its probe.
        """
        attempt, judged = object(), False
        if self._probe_at_s != math.inf and not self._probing():
            self._probe = attempt
            self._probe_until_s = self._clock.monotonic() + self._silence.total_seconds()
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if not judged:
                        judged = True
                        self._answered()
                    yield piece
        except DeadlinePassed:
            raise
        except WeirError as error:
            self._count_error(error)
            raise
        finally:
            # One that was cancelled tells nothing: the next request is the probe.
            if self._probe is attempt:
                self._probe = None

    def _probing(self) -> bool:
        return self._probe is not None and self._clock.monotonic() < self._probe_until_s

    def _count_error(self, error: WeirError) -> None:
        if not isinstance(error, _FAILURES):
            self._answered()
            return
        self._counted(failures=1)
        if self._probe_at_s != math.inf or error.details.get("down") == "true" or self._fails_too_often():
            self._probe_at_s = self._clock.monotonic() + self._rule.probe.total_seconds()

    def _answered(self) -> None:
        if self._probe_at_s != math.inf:
            self._probe_at_s, self._probe = math.inf, None
            self._counts.clear()
        self._counted(failures=0)

    def _counted(self, failures: int) -> None:
        now_s = self._clock.monotonic()
        if self._counts and now_s - self._counts[-1][0] < self._slice_s:
            begun_s, answers, failed = self._counts.pop()
            self._counts.append((begun_s, answers + 1 - failures, failed + failures))
        else:
            self._counts.append((now_s, 1 - failures, failures))

    def _fails_too_often(self) -> bool:
        since_s = self._clock.monotonic() - self._rule.window.total_seconds()
        answers = sum(count[1] for count in self._counts if count[0] >= since_s)
        failures = sum(count[2] for count in self._counts if count[0] >= since_s)
        return failures >= self._rule.failures and failures >= answers
