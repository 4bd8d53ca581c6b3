"""Runs a plan: asks its targets in order until one answers, and writes down every attempt."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from uuid import UUID

from dialects.chat_request import ChatRequest
from gen.weir.error.v1 import Reason
from gen.weir.ledger.v1 import Outcome
from meshkit.errors import (
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
from meshkit.telemetry import Logger
from services.router.domain.attempt import Asked, Attempt
from services.router.domain.plan import Plan, Step
from services.router.guard import DeadlinePassed, Guard
from services.router.metrics import RouterMetrics
from services.router.ports import AttemptLog, Clock, Piece, Target

FAILS_OVER = (
    UpstreamError, UpstreamTimeout, UpstreamTruncated, UpstreamStalled, RateLimited, NoHealthyTarget, ContextTooLong,
)  # fmt: skip
"""Errors that another target may not have. The request's own faults are not among them."""
MAX_REASON_CHARS = 512
"""Of a route reason with its list of failures: it travels in a header."""
_CANCELLED = Reason.CANCELLED.name
_INTERNAL = Reason.INTERNAL.name


class RunPlan:
    """The attempt loop.

    Args:
        targets: by name.
        log: where attempts are written.
        new_id: makes entry ids (UUIDv7).
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        log: AttemptLog,
        clock: Clock,
        new_id: Callable[[], UUID],
        metrics: RouterMetrics,
        logger: Logger,
    ) -> None:
        self._targets = targets
        self._log = log
        self._clock = clock
        self._new_id = new_id
        self._metrics = metrics
        self._logger = logger

    async def run(
        self, plan: Plan, asked: Asked, request: ChatRequest
    ) -> AsyncGenerator[tuple[Attempt, Piece], None]:
        """Yields pieces of the answer with the attempt that brought them.

        For a request that streams, pieces are the client's at once, so only an attempt that brought none is followed
        by another. A request that does not stream is answered whole: when the attempt changes, what earlier
        attempts brought is void. Raises the first target's error when none answers.
        """
        if plan.unsupported is not None:
            raise UnsupportedParameter(
                f"{plan.unsupported}: not supported by model {plan.model!r}", param=plan.unsupported
            )
        deadline_s = self._deadline_s(asked)
        failures: list[tuple[Step, WeirError]] = []
        for step in plan.steps:
            if self._clock.monotonic() >= deadline_s:
                raise DeadlinePassed
            attempt = self._begin(step, asked, request, failures)
            try:
                async with aclosing(self._attempt(step, attempt, request, deadline_s)) as pieces:
                    async for piece in pieces:
                        yield attempt, piece
            except DeadlinePassed:
                raise
            except FAILS_OVER as error:
                self._note(step, asked, error)
                if request.stream and attempt.has_first_token:
                    raise
                failures.append((step, error))
            else:
                return
        raise _exhausted(plan, failures)

    def _deadline_s(self, asked: Asked) -> float:
        return (
            math.inf if asked.patience is None else self._clock.monotonic() + asked.patience.total_seconds()
        )

    def _note(self, step: Step, asked: Asked, error: WeirError) -> None:
        self._logger.warning(
            "attempt failed",
            target=step.target.name, request_id=asked.request_id, reason=_reason(error), error=str(error),
        )  # fmt: skip

    def _begin(
        self, step: Step, asked: Asked, request: ChatRequest, failures: list[tuple[Step, WeirError]]
    ) -> Attempt:
        sampling = request.typed.sampling
        cap = None if sampling is None else sampling.max_output_tokens
        attempt = Attempt(
            asked,
            number=len(failures) + 1,
            target=self._targets[step.target.name].describe(),
            reason=_route_reason(step, failures),
            entry_id=self._new_id(),
            begun_at=self._clock.now(),
            begun_s=self._clock.monotonic(),
            reserved_output_tokens=cap or step.target.default_max_output_tokens,
        )
        self._log.begin(attempt.begun())
        return attempt

    async def _attempt(
        self, step: Step, attempt: Attempt, request: ChatRequest, deadline_s: float
    ) -> AsyncGenerator[Piece, None]:
        """The pieces of one attempt, whose end is written down whichever way it comes."""
        outcome, reason = Outcome.CANCELLED, _CANCELLED
        try:
            async with aclosing(self._asked(step, attempt, request, deadline_s)) as pieces:
                async for piece in pieces:
                    if piece.finished:
                        # Before the yield: whoever reads may stop reading once the answer is whole.
                        outcome, reason = Outcome.OK, ""
                    if piece.malformed_events:
                        self._metrics.malformed(step.target.name, piece.malformed_events)
                    yield piece
        except DeadlinePassed:
            raise
        except WeirError as error:
            outcome, reason = _broken(attempt), _reason(error)
            raise
        except Exception as error:
            outcome, reason = _broken(attempt), _INTERNAL
            self._logger.exception("target adapter failed", error, target=step.target.name)
            raise UpstreamError(f"{step.target.name}: internal error") from error
        finally:
            entry = attempt.ended(outcome, reason, self._clock.monotonic())
            self._log.end(entry)
            self._metrics.ended(step.target.name, entry)

    def _asked(
        self, step: Step, attempt: Attempt, request: ChatRequest, deadline_s: float
    ) -> AsyncGenerator[Piece, None]:
        # A unary answer of a provider comes in one piece: its first token is its last.
        streams = request.stream or step.target.provider_label == "local"
        guard = Guard(attempt, step.target.limits, self._clock, deadline_s, streams=streams)
        target = self._targets[step.target.name]
        return guard.guarded(target.generate(request, attempt.request_id, stream=streams))


def _broken(attempt: Attempt) -> Outcome:
    return Outcome.CUT if attempt.has_first_token else Outcome.FAILED


def _route_reason(step: Step, failures: list[tuple[Step, WeirError]]) -> str:
    failed = [f"{past.target.name} failed: {_reason(error)}" for past, error in failures]
    return "; ".join([step.reason, *failed])[:MAX_REASON_CHARS]


def _exhausted(plan: Plan, failures: list[tuple[Step, WeirError]]) -> WeirError:
    """The first target's error, with the list of attempts in its details: the most useful one."""
    if not failures:
        return NoHealthyTarget(f"model {plan.model!r} has no target")
    first = failures[0][1]
    tried = ", ".join(f"{step.target.name}: {_reason(error)}" for step, error in failures)
    return type(first)(
        first.message,
        param=first.param,
        retry_after=first.retry_after,
        details={"attempts": tried, **first.details},
    )


def _reason(error: WeirError) -> str:
    return Reason(error.reason).name
