"""Answers within limits: wraps the answer to every request, whichever face of the router it came through."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from dialects.request import Endpoint, Request
from services.router.answer import Answers, Asking
from services.router.domain.estimate import tokens_of
from services.router.domain.plan import Plan
from services.router.rates.admission import Admission
from services.router.rates.metrics import RateMetrics
from services.router.rates.refusals import too_long
from services.router.rates.subjects import NOTHING, Applying, ContextLimit, Subjects
from services.router.run_plan import Arrival


class LimitedAnswer:
    """Answers (services.router.answer.Answers) whose requests keep within their limits.

    A request that no limit applies to is handed on as it is.

    Args:
        assumed_output_tokens: set aside for an answer without a cap.
    """

    def __init__(
        self,
        answers: Answers,
        subjects: Subjects,
        admission: Admission,
        assumed_output_tokens: int,
        metrics: RateMetrics,
    ) -> None:
        self._answers = answers
        self._subjects = subjects
        self._admission = admission
        self._assumed_output_tokens = assumed_output_tokens
        self._metrics = metrics

    def take_over(self, subjects: Subjects) -> None:
        """From now on requests are held to these limits."""
        self._subjects = subjects

    def plan(self, request: Request, asking: Asking) -> Plan:
        """As the answer that is wrapped."""
        return self._answers.plan(request, asking)

    def answer(self, request: Request, asking: Asking) -> AsyncGenerator[Arrival, None]:
        """As the answer that is wrapped, and see `run`."""
        return self.run(self.plan(request, asking), request, asking)

    def run(self, plan: Plan, request: Request, asking: Asking) -> AsyncGenerator[Arrival, None]:
        """As the answer that is wrapped.

        Raises ContextTooLong at once, and before the first arrival RateLimited; UpstreamError where limits cannot be
        checked.
        """
        applying = self._subjects.of(asking.caller, plan.limited_as)
        if applying is NOTHING:
            return self._answers.run(plan, request, asking)
        if applying.context is not None:
            self._check_context(applying.context, request)
        arrivals = self._answers.run(plan, request, asking)
        return self._limited(arrivals, applying, request, asking) if applying.limits else arrivals

    async def _limited(
        self, arrivals: AsyncGenerator[Arrival, None], applying: Applying, request: Request, asking: Asking
    ) -> AsyncGenerator[Arrival, None]:
        standing = asking.standing
        ticket = await self._admission.enter(applying.limits, self._set_aside(request))
        standing.headers = ticket.headers
        try:
            async with aclosing(arrivals):
                async for arrival in arrivals:
                    yield arrival
        finally:
            # Only now, when every attempt has ended, is it known what they used.
            ticket.settle(standing.used_tokens)

    def _set_aside(self, request: Request) -> int:
        """Tokens: the prompt's, by estimate, and the answers' cap."""
        prompt = tokens_of(request.prompt_bytes)
        if request.endpoint is Endpoint.EMBEDDINGS:
            return prompt
        cap = request.max_output_tokens
        return prompt + (self._assumed_output_tokens if cap is None else cap) * request.choices

    def _check_context(self, limit: ContextLimit, request: Request) -> None:
        prompt, output = tokens_of(request.prompt_bytes), request.max_output_tokens or 0
        if prompt + output > limit.tokens:
            self._metrics.too_long(limit.kind)
            raise too_long(limit, prompt, output)
