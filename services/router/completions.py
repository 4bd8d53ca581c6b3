"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from dialects.completion_answer import CompletionRendering
from dialects.completion_request import read
from services.router.answer import Asking
from services.router.deliver import Deliver, Part


class Completions:
    """OpenAI's older completions."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def completions(self, body: bytes, asking: Asking) -> AsyncGenerator[Part, None]:
        """The answer in parts, see Deliver.deliver. Raises InvalidRequest at once."""
        request = read(body)
        return self._deliver.deliver(
            request, CompletionRendering(include_usage=request.include_usage), asking
        )
