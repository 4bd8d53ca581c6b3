"""Answers in the typed contract: started, deltas, finished."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

from dialects.typed_request import read_typed
from gen.weir.router.v1 import Delta, Finished, GenerateRequest, GenerateResponse, Started
from gen.weir.type.v1 import FinishReason, Principal
from services.router.answer import Answer


class Generate:
    """Router/Generate."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def generate(
        self,
        request: GenerateRequest,
        principal: Principal,
        request_id: str,
        patience: timedelta | None = None,
    ) -> AsyncGenerator[GenerateResponse, None]:
        """Events of the answer. Raises the nouns of meshkit.errors, also in the middle."""
        chat = read_typed(request)
        finish = FinishReason.UNSPECIFIED
        started = False
        answer = self._answer.answer(chat, principal, request_id, patience)
        async with aclosing(answer) as pieces:
            async for attempt, piece in pieces:
                finish = piece.finish_reason or finish
                if not started and (piece.text or piece.finished):
                    started = True
                    yield GenerateResponse(
                        started=Started(
                            request_id=request_id, target=attempt.target, route_reason=attempt.reason
                        )
                    )
                if piece.text:
                    yield GenerateResponse(delta=Delta(text=piece.text))
                if piece.finished:
                    yield GenerateResponse(finished=Finished(finish_reason=finish, usage=attempt.usage()))
