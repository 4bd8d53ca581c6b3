"""Answers in the typed contract: started, deltas, finished."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from dialects.rendering import Bill
from dialects.typed_request import read_typed
from gen.weir.router.v1 import Delta, Finished, GenerateRequest, GenerateResponse, PlanStep, Started
from gen.weir.type.v1 import FinishReason
from services.router.answer import Answers, Asking
from services.router.domain.attempt import Attempt
from services.router.domain.plan import Plan
from services.router.wishes import with_options


class Generate:
    """Router/Generate."""

    def __init__(self, answer: Answers) -> None:
        self._answer = answer

    async def generate(
        self, request: GenerateRequest, asking: Asking
    ) -> AsyncGenerator[GenerateResponse, None]:
        """Events of the answer. Raises the nouns of meshkit.errors, also in the middle."""
        asking = replace(asking, wishes=with_options(asking.wishes, request.route))
        chat = read_typed(request)
        plan = self._answer.plan(chat, asking)
        finish = FinishReason.UNSPECIFIED
        started = False
        async with aclosing(self._answer.run(plan, chat, asking)) as arrivals:
            async for attempt, piece, _, bill, attempts in arrivals:
                finish = piece.finish_reason or finish
                if not started and (piece.text or piece.tool_calls or piece.finished):
                    started = True
                    yield GenerateResponse(started=_started(asking.request_id, attempt, plan, attempts))
                if piece.text or piece.tool_calls:
                    yield GenerateResponse(delta=Delta(text=piece.text, tool_calls=piece.tool_calls))
                if piece.finished and bill is not None:
                    yield GenerateResponse(finished=_finished(finish, bill))


def _started(request_id: str, attempt: Attempt, plan: Plan, attempts: int) -> Started:
    return Started(
        request_id=request_id,
        target=attempt.target,
        route_reason=attempt.reason,
        plan=[PlanStep(target=step.target.target, reason=step.reason) for step in plan.steps],
        attempts=attempts,
    )


def _finished(finish: FinishReason, bill: Bill) -> Finished:
    return Finished(
        finish_reason=finish, usage=bill.usage, attempts=bill.attempts, cost_nano_usd=bill.cost_nano_usd
    )
