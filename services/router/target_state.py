"""A target, and what this process learnt of it."""

from __future__ import annotations

from services.router.breaker import Breaker, BreakerState
from services.router.domain.target import TargetSpec
from services.router.hedge import FirstTokens
from services.router.ports import Clock, Target


class TargetState:
    """One for each target of a process."""

    def __init__(self, target: Target, clock: Clock) -> None:
        self.target = target
        self.breaker = Breaker(target.spec.breaker, clock, target.spec.limits.first_token)
        self.first_tokens = {True: FirstTokens(), False: FirstTokens()}
        """Of answers that stream, and of those that come whole."""

    @property
    def spec(self) -> TargetSpec:
        """As configured."""
        return self.target.spec

    def is_up(self) -> bool:
        """Whether a request may be sent there now: its last probes were answered, and its breaker lets one through."""
        return self.target.is_up() and self.breaker.admits()

    def is_left_alone(self) -> bool:
        """Whether its breaker is not closed."""
        return self.breaker.state is not BreakerState.CLOSED

    def word(self) -> str:
        """`up`, `down`, or the breaker's state where that is not closed; for people."""
        if not self.target.is_up():
            return "down"
        return self.breaker.state.value if self.is_left_alone() else "up"
