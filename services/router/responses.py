"""POST /v1/responses."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from dialects.responses_answer import ResponsesRendering
from dialects.responses_request import read
from services.router.answer import Asking
from services.router.deliver import Deliver, Part


class Responses:
    """OpenAI's Responses API."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def responses(self, body: bytes, asking: Asking) -> AsyncGenerator[Part, None]:
        """The answer in parts, see Deliver.deliver. Raises InvalidRequest at once."""
        request = read(body)
        return self._deliver.deliver(request, ResponsesRendering(request), asking)
