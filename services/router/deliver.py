"""Delivers an answer in one of OpenAI's formats: bytes, with what the first of them says of the attempt."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from dialects.rendering import JSON_TYPE, SSE_TYPE, AnswerHead, Rendering
from dialects.request import Request
from gen.weir.type.v1 import Locality
from meshkit.errors import InternalFault, WeirError
from services.router.answer import Answers, Asking
from services.router.domain.attempt import Attempt
from services.router.ports import Piece
from services.router.run_plan import Arrival


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes for the client. The first part of an answer also carries its content type and attempt."""

    data: bytes
    content_type: str = ""
    attempt: Attempt | None = None
    attempts: int = 0
    """Begun when it came."""


class Deliver:
    """Answers a request and renders what comes."""

    def __init__(self, answer: Answers) -> None:
        self._answer = answer

    def deliver(self, request: Request, rendering: Rendering, asking: Asking) -> AsyncGenerator[Part, None]:
        """The answer in parts. Errors before the first part are raised; later ones become an error event.

        Raises at once what Answer.answer raises.
        """
        arrivals = self._answer.answer(request, asking)
        return _stream(rendering, arrivals) if request.stream else _whole(rendering, arrivals)


async def _stream(
    rendering: Rendering, arrivals: AsyncGenerator[Arrival, None]
) -> AsyncGenerator[Part, None]:
    begun = False
    head: AnswerHead | None = None
    last: Attempt | None = None
    async with aclosing(arrivals):
        try:
            async for attempt, piece, native, bill, attempts in arrivals:
                if head is None or attempt is not last:
                    head, last = _head(attempt, native, head), attempt
                data = rendering.events(head, piece, bill)
                if data:
                    yield Part(data) if begun else Part(data, SSE_TYPE, attempt, attempts)
                    begun = True
        except Exception as error:
            if not begun:
                raise
            known = error if isinstance(error, WeirError) else InternalFault("internal error")
            # Without an end: nobody shall take this for a whole answer.
            yield Part(rendering.error(known))
            if known is not error:
                raise  # to the log


async def _whole(rendering: Rendering, arrivals: AsyncGenerator[Arrival, None]) -> AsyncGenerator[Part, None]:
    pieces: list[Piece] = []
    async with aclosing(arrivals):
        async for attempt, piece, native, bill, attempts in arrivals:
            pieces.append(piece)
            if piece.finished and bill is not None:
                head = _head(attempt, native, None)
                yield Part(rendering.whole(head, pieces, bill), JSON_TYPE, attempt, attempts)


def _head(attempt: Attempt, native: bool, before: AnswerHead | None) -> AnswerHead:  # noqa: FBT001 - a part of Arrival
    """The head of an attempt's objects; an answer that another attempt began keeps its id."""
    return AnswerHead(
        id=attempt.entry_id.hex if before is None else before.id,
        created_s=int(attempt.begun_at.timestamp()) if before is None else before.created_s,
        model=attempt.target.model,
        provider="local" if attempt.target.locality == Locality.LOCAL else "cloud",
        native=native,
    )
