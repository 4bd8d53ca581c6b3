"""Embeddings in the typed contract."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

from dialects.embedding_answer import read_vectors
from dialects.embedding_request import read_embed
from gen.weir.router.v1 import Embedding, EmbedRequest, EmbedResponse
from meshkit.errors import InternalFault
from services.router.answer import Answers, Asking
from services.router.run_plan import Arrival
from services.router.wishes import with_options


class Embed:
    """Router/Embed."""

    def __init__(self, answer: Answers) -> None:
        self._answer = answer

    async def embed(self, request: EmbedRequest, asking: Asking) -> EmbedResponse:
        """The vectors. Raises the nouns of meshkit.errors."""
        asking = replace(asking, wishes=with_options(asking.wishes, request.route))
        last: Arrival | None = None
        async with aclosing(self._answer.answer(read_embed(request), asking)) as arrivals:
            async for arrival in arrivals:
                last = arrival
        if last is None:
            raise InternalFault("an answer without an end")
        return _response(last, len(request.inputs))


def _response(arrival: Arrival, count: int) -> EmbedResponse:
    attempt, piece, _, bill, _ = arrival
    if bill is None or not piece.bodies:
        raise InternalFault("an answer without an end")
    return EmbedResponse(
        embeddings=[Embedding(values=vector) for vector in read_vectors(piece.bodies[-1], count)],
        usage=bill.usage,
        target=attempt.target,
        route_reason=attempt.reason,
        attempts=bill.attempts,
        cost_nano_usd=bill.cost_nano_usd,
    )
