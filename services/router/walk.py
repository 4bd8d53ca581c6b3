"""Walks a plan: which target is asked next, after how long, and in which manner, until there is nowhere to go."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from gen.weir.error.v1 import Reason
from meshkit.errors import NoHealthyTarget, WeirError
from services.router.continue_answer import Manner, best_manner
from services.router.domain.plan import Plan, Step
from services.router.retry import Course, Tries, judge

MAX_REASON_CHARS = 512
"""Of a route reason with its list of failures: it travels in a header."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One attempt to make."""

    step: Step
    manner: Manner = Manner.AFRESH
    wait_s: float = 0.0
    """Before it begins."""
    last_resort: bool = False
    """Its breaker is open, and nobody else is left."""


class Walk:
    """The way of one request through its plan.

    Args:
        plan: the targets in order.
        admits: whether a target's breaker lets a request through now.
        max_attempts: of the whole request.
        draw: a random number in [0, 1).
    """

    def __init__(
        self, plan: Plan, admits: Callable[[str], bool], max_attempts: int, draw: Callable[[], float]
    ) -> None:
        self._plan = plan
        self._admits = admits
        self._max_attempts = max_attempts
        self._draw = draw
        self._ahead = deque(plan.steps)
        self._shut: list[Step] = []
        self._next: Turn | None = None
        self._tries: dict[str, Tries] = {}
        self._failures: list[tuple[Step, WeirError]] = []
        self.attempts = 0
        """Begun so far."""

    def turn(self) -> Turn | None:
        """The next attempt, which counts as begun; None where there is nowhere to go."""
        if self.attempts >= self._max_attempts:
            return None
        turn, self._next = self._next or self._advance(), None
        if turn is not None:
            self._begin(turn)
        return turn

    def hedge(self) -> Turn | None:
        """Another target to ask while the present one is still silent; it counts as begun."""
        if (
            self.attempts >= self._max_attempts
            or not self._ahead
            or not self._admits(self._ahead[0].target.name)
        ):
            return None
        turn = Turn(self._ahead.popleft())
        self._begin(turn)
        return turn

    def failed(self, turn: Turn, error: WeirError, left_s: float) -> bool:
        """Notes how an attempt failed before anything was delivered; whether there is a way on.

        `left_s` is how long the caller still waits.
        """
        self.note(turn, error)
        last = turn.last_resort or not (self._ahead or self._shut)
        tries = self._tries[turn.step.target.name]
        verdict = judge(error, tries, turn.step.target.retry, left_s, self._draw, last=last)
        if verdict.course is Course.END:
            return False
        # One attempt is kept for each target that had none yet.
        spare = self._max_attempts - self.attempts > len(self._ahead)
        if (
            verdict.course is Course.SAME
            and spare
            and not turn.last_resort
            and self._admits(turn.step.target.name)
        ):
            tries.waited_s += verdict.wait_s
            told = error.retry_after is not None and verdict.wait_s > 0
            tries.waited_as_told = tries.waited_as_told or told
            self._next = replace(turn, wait_s=verdict.wait_s)
        elif verdict.course is Course.LARGER:
            self._keep_larger(turn.step)
        return True

    def broke_off(self, turn: Turn, error: WeirError, *, refused: bool) -> None:
        """Notes that an answer, of which the client has a part, is to be continued by another target.

        `refused` tells that the target refused the manner in which it was asked: it is asked in the other one.
        """
        self.note(turn, error)
        if refused and turn.manner is Manner.PREFILL:
            self._next = Turn(turn.step, Manner.REPLAY)
        elif (following := self._advance()) is not None:
            self._next = replace(following, manner=best_manner(following.step.target))

    def note(self, turn: Turn, error: WeirError) -> None:
        """Notes a failure."""
        self._failures.append((turn.step, error))

    def reason(self, step: Step) -> str:
        """Why this target is asked now: its place in the plan, and what failed before. ASCII."""
        failed = [f"{past.target.name} failed: {_reason(error)}" for past, error in self._failures]
        return "; ".join([step.reason, *failed])[:MAX_REASON_CHARS]

    def exhausted(self, error: WeirError | None = None) -> WeirError:
        """What the client is told: the first target's error, or `error`, with the list of attempts in its details."""
        if not self._failures:
            return NoHealthyTarget(f"model {self._plan.model!r} has no target")
        told = error or self._failures[0][1]
        tried = ", ".join(f"{step.target.name}: {_reason(past)}" for step, past in self._failures)
        return type(told)(
            told.message,
            param=told.param,
            retry_after=told.retry_after,
            details={"attempts": tried, **told.details},
        )

    def _begin(self, turn: Turn) -> None:
        self.attempts += 1
        self._tries.setdefault(turn.step.target.name, Tries()).attempts += 1

    def _advance(self) -> Turn | None:
        """The next step whose breaker lets a request through, else, as a last resort, one that was passed over."""
        while self._ahead:
            step = self._ahead.popleft()
            if self._admits(step.target.name):
                return Turn(step)
            self._shut.append(step)
        return Turn(self._shut.pop(0), last_resort=True) if self._shut else None

    def _keep_larger(self, small: Step) -> None:
        """Passes over targets whose context is known to be no larger."""
        window = small.target.capabilities.context_window

        def larger(step: Step) -> bool:
            other = step.target.capabilities.context_window
            return window is None or other is None or other > window

        self._ahead = deque(step for step in self._ahead if larger(step))
        self._shut = [step for step in self._shut if larger(step)]


def _reason(error: WeirError) -> str:
    return Reason(error.reason).name
