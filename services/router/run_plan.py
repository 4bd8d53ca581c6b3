"""Runs a plan: asks its targets in order until one answers, and writes down every attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from uuid import UUID

from dialects.chat_request import ChatRequest
from gen.weir.error.v1 import Reason
from gen.weir.ledger.v1 import Outcome
from meshkit.errors import (
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
from services.router.metrics import RouterMetrics
from services.router.ports import AttemptLog, Clock, Piece, Target

FAILS_OVER = (
    UpstreamError, UpstreamTimeout, UpstreamTruncated, UpstreamStalled, RateLimited, NoHealthyTarget,
)  # fmt: skip
"""Errors that another target may not have. The request's own faults are not among them."""

READ_OUT_S = 1.0
"""How long the end of a whole answer may lag behind its last piece before its call is cancelled."""


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
        failures: list[tuple[Step, WeirError]] = []
        for step in plan.steps:
            attempt = self._begin(step, asked, request, failures)
            try:
                async with aclosing(self._attempt(step, attempt, request)) as pieces:
                    async for piece in pieces:
                        yield attempt, piece
            except FAILS_OVER as error:
                if request.stream and attempt.has_first_token:
                    raise
                failures.append((step, error))
            else:
                return
        raise _exhausted(plan, failures)

    def _begin(
        self, step: Step, asked: Asked, request: ChatRequest, failures: list[tuple[Step, WeirError]]
    ) -> Attempt:
        failed = "; ".join(f"{past.target.name} failed: {_reason(error)}" for past, error in failures)
        sampling = request.typed.sampling
        cap = None if sampling is None else sampling.max_output_tokens
        attempt = Attempt(
            asked,
            number=len(failures) + 1,
            target=self._targets[step.target.name].describe(),
            reason=f"{step.reason}; {failed}" if failed else step.reason,
            entry_id=self._new_id(),
            begun_at=self._clock.now(),
            begun_s=self._clock.monotonic(),
            reserved_output_tokens=cap or step.target.default_max_output_tokens,
        )
        self._log.begin(attempt.begun())
        return attempt

    async def _attempt(
        self, step: Step, attempt: Attempt, request: ChatRequest
    ) -> AsyncGenerator[Piece, None]:
        outcome, reason = Outcome.CANCELLED, _name(Reason.CANCELLED)
        try:
            async with aclosing(self._guarded(step, attempt, request)) as pieces:
                async for piece in pieces:
                    if piece.finished:
                        # Before the yield: whoever reads may stop reading once the answer is whole.
                        outcome, reason = Outcome.OK, ""
                    yield piece
        except WeirError as error:
            outcome = Outcome.CUT if attempt.has_first_token else Outcome.FAILED
            reason = _reason(error)
            raise
        except Exception as error:
            outcome, reason = Outcome.FAILED, _name(Reason.INTERNAL)
            self._logger.exception("target adapter failed", error, target=step.target.name)
            raise UpstreamError(f"{step.target.name}: internal error") from error
        finally:
            entry = attempt.ended(outcome, reason, self._clock.monotonic())
            self._log.end(entry)
            self._metrics.ended(step.target.name, entry)

    async def _guarded(
        self, step: Step, attempt: Attempt, request: ChatRequest
    ) -> AsyncGenerator[Piece, None]:
        """The target's pieces under its limits. Raises UpstreamTimeout, UpstreamStalled, UpstreamTruncated."""
        name, limits = step.target.name, step.target.limits
        target = self._targets[name]
        # A unary answer of a provider comes in one piece: its first token is its last.
        streams = request.stream or step.target.provider_label == "local"
        ends_s = self._clock.monotonic() + limits.total.total_seconds()
        wait = limits.first_token if streams else limits.total
        async with aclosing(target.generate(request, attempt.begun().request_id, stream=streams)) as pieces:
            while True:
                left_s = min(wait.total_seconds(), ends_s - self._clock.monotonic())
                try:
                    async with asyncio.timeout(left_s):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    raise UpstreamTruncated(f"{name}: the answer ended before it was whole") from None
                except TimeoutError:
                    raise _too_slow(name, left_s, begun=attempt.has_first_token) from None
                if piece.text or piece.bodies or piece.usage is not None:
                    attempt.arrived(piece.text, piece.usage, self._clock.monotonic())
                    wait = limits.inter_token
                self._metrics.malformed(name, piece.malformed_events)
                yield piece
                if piece.finished:
                    await _read_out(pieces)
                    return


async def _read_out(pieces: AsyncGenerator[Piece, None]) -> None:
    """Lets a whole answer end by itself, so that the connection it came on can be used again."""
    with suppress(TimeoutError, WeirError):
        async with asyncio.timeout(READ_OUT_S):
            async for _ in pieces:
                pass


def _too_slow(name: str, limit_s: float, *, begun: bool) -> WeirError:
    if begun:
        return UpstreamStalled(f"{name}: silent for {limit_s:.1f} s in mid-answer")
    return UpstreamTimeout(f"{name}: no first token within {limit_s:.1f} s")


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
        details={**first.details, "attempts": tried},
    )


def _reason(error: WeirError) -> str:
    return _name(error.reason)


def _name(reason: Reason) -> str:
    return Reason(reason).name
