"""POST /v1/embeddings."""

from __future__ import annotations

from contextlib import aclosing

from dialects.embedding_answer import EmbeddingRendering
from dialects.embedding_request import read
from meshkit.errors import InternalFault
from services.router.answer import Asking
from services.router.deliver import Deliver, Part


class Embeddings:
    """OpenAI's embeddings."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    async def embeddings(self, body: bytes, asking: Asking) -> Part:
        """The whole answer. Raises the nouns of meshkit.errors."""
        async with aclosing(self._deliver.deliver(read(body), EmbeddingRendering(), asking)) as parts:
            async for part in parts:
                return part
        raise InternalFault("an answer without a part")
