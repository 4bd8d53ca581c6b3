"""weir.router.v1.GenerateRequest -> the one kind of request that use cases know."""

from __future__ import annotations

from typing import Any

from msgspec import Raw
from msgspec.json import encode

from dialects.chat_request import ChatRequest
from dialects.chat_sampling import check_sampling
from dialects.json_fields import Fields
from gen.weir.router.v1 import GenerateRequest
from gen.weir.type.v1 import Role, Sampling
from meshkit.errors import InvalidRequest

_ROLES = (Role.SYSTEM, Role.USER, Role.ASSISTANT)


def read_typed(request: GenerateRequest) -> ChatRequest:
    """Checks a typed request, which stays as it is. Raises InvalidRequest naming the field."""
    if not request.messages:
        raise InvalidRequest("messages: must not be empty", param="messages")
    for index, message in enumerate(request.messages):
        if message.role not in _ROLES:
            where = f"messages[{index}].role"
            raise InvalidRequest(f"{where}: unknown role {int(message.role)}", param=where)
        if not message.content and message.role != Role.ASSISTANT:
            where = f"messages[{index}].content"
            raise InvalidRequest(f"{where}: must not be empty", param=where)
    sampling = Sampling() if request.sampling is None else request.sampling
    check_sampling(sampling, {})
    return ChatRequest(
        typed=request,
        stream=True,
        include_usage=True,
        needs={},
        fields=_sampling_fields(sampling),
        prompt_bytes=sum(len(message.content.encode()) for message in request.messages),
    )


def _sampling_fields(sampling: Sampling) -> Fields:
    """The sampling as OpenAI's top-level fields."""
    named: dict[str, Any] = {
        "max_tokens": sampling.max_output_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop": sampling.stop or None,
        "seed": sampling.seed,
    }
    return {name: Raw(encode(value)) for name, value in named.items() if value is not None}
