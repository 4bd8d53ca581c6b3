"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from dialects.chat_answer import ChatRendering
from dialects.chat_request import read
from services.router.answer import Asking
from services.router.deliver import Deliver, Part


class ChatCompletions:
    """OpenAI's chat completions."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def chat_completions(self, body: bytes, asking: Asking) -> AsyncGenerator[Part, None]:
        """The answer in parts, see Deliver.deliver. Raises InvalidRequest at once."""
        request = read(body)
        return self._deliver.deliver(request, ChatRendering(include_usage=request.include_usage), asking)
