"""Keeps a share of the requests of keys whose sampling is switched on: prompt and answer, for people to read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime

import msgspec

from dialects.request import Request
from gen.weir.auth.v1 import Sample
from services.router.answer import Answers, Asking
from services.router.domain.plan import Plan
from services.router.run_plan import Arrival
from services.router.samples import Samples

MAX_TEXT_BYTES = 64 * 1024
"""Of a prompt and of an answer each; what is longer is cut."""
_ENCODER = msgspec.json.Encoder()


class SampledAnswer:
    """Answers (services.router.answer.Answers), of which a share is kept.

    A request of a key without sampling is handed on as it is.

    Args:
        samples: where they go.
        draw: a random number in [0, 1).
        now: the wall time, UTC.
    """

    def __init__(
        self, answers: Answers, samples: Samples, draw: Callable[[], float], now: Callable[[], datetime]
    ) -> None:
        self._answers = answers
        self._samples = samples
        self._draw = draw
        self._now = now

    def plan(self, request: Request, asking: Asking) -> Plan:
        """As the answer that is wrapped."""
        return self._answers.plan(request, asking)

    def answer(self, request: Request, asking: Asking) -> AsyncGenerator[Arrival, None]:
        """As the answer that is wrapped."""
        return self.run(self.plan(request, asking), request, asking)

    def run(self, plan: Plan, request: Request, asking: Asking) -> AsyncGenerator[Arrival, None]:
        """As the answer that is wrapped."""
        arrivals = self._answers.run(plan, request, asking)
        share = asking.caller.sampling
        if not share or self._draw() >= share:
            return arrivals
        return self._kept(arrivals, plan, request, asking)

    async def _kept(
        self, arrivals: AsyncGenerator[Arrival, None], plan: Plan, request: Request, asking: Asking
    ) -> AsyncGenerator[Arrival, None]:
        at = self._now()
        text, target, finished = _Text(), "", False
        try:
            async with aclosing(arrivals):
                async for arrival in arrivals:
                    target = arrival.attempt.target.name
                    text.add(arrival.piece.text)
                    finished = finished or arrival.piece.finished
                    yield arrival
        finally:
            prompt, cut = _cut(_ENCODER.encode(request.fields))
            self._samples.add(
                Sample(
                    at=at,
                    request_id=asking.request_id,
                    key_id=asking.caller.principal.key_id,
                    model=plan.model,
                    target=target,
                    prompt=prompt,
                    answer="".join(text.parts),
                    partial=cut or text.is_cut or not finished,
                )
            )


class _Text:
    """The beginning of a text that comes in parts."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.is_cut = False
        self._left = MAX_TEXT_BYTES

    def add(self, part: str) -> None:
        """Takes the next part, as far as there is room."""
        data = part.encode()
        if len(data) > self._left:
            self.is_cut = True
            part = data[: self._left].decode(errors="ignore")
        self._left -= min(self._left, len(data))
        if part:
            self.parts.append(part)


def _cut(data: bytes) -> tuple[str, bool]:
    return data[:MAX_TEXT_BYTES].decode(errors="ignore"), len(data) > MAX_TEXT_BYTES
