"""weir.router.v1.GenerateRequest -> the one kind of request that use cases know, rendered in OpenAI's chat format.

A request that is rendered and read back by dialects.chat_request has the same needs and the same `typed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from msgspec import Raw
from msgspec.json import Encoder

from dialects.chat_sampling import check_sampling
from dialects.chat_tools import note_form_beside_tools
from dialects.request import Request
from dialects.typed_messages import Rendered, TypedMessages
from dialects.typed_tools import add_format, add_tool_choice, add_tools
from gen.weir.router.v1 import GenerateRequest
from gen.weir.type.v1 import Sampling

_ENCODER = Encoder()
_COUNTED: Final = ("tools", "response_format")
"""Fields that a model reads beside the conversation."""
_PLACES: Mapping[str, str] = MappingProxyType({
    name: f"sampling.{name}"
    for name in (
        "max_output_tokens", "temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty",
    )
})  # fmt: skip


def read_typed(request: GenerateRequest) -> Request:
    """Checks a typed request, which stays as it is, and renders it.

    The request's `typed` is what our own models honour: without media, `route`, and what says nothing. `needs` name
    places of the typed contract (`messages[0].parts[1]`). Raises InvalidRequest naming the place.
    """
    needs: dict[str, str] = {}
    fields: Rendered = {}
    messages = TypedMessages(needs)
    messages.add_all(request.messages)
    fields["messages"] = messages.rendered
    sampling = Sampling() if request.sampling is None else request.sampling
    check_sampling(sampling, dict(_PLACES))
    _add_sampling(sampling, fields)
    tools = add_tools(request.tools, fields, needs)
    choice = add_tool_choice(request.tool_choice, tools, fields, needs)
    parallel = request.parallel_tool_calls if tools else None
    if parallel is not None:
        fields["parallel_tool_calls"] = parallel
    form = add_format(request.response_format, fields, needs)
    typed = GenerateRequest(
        model=request.model,
        messages=messages.read,
        sampling=sampling,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=form,
    )
    note_form_beside_tools(typed, needs)
    encoded = {name: Raw(_ENCODER.encode(value)) for name, value in fields.items()}
    return Request(
        typed=typed,
        stream=True,
        include_usage=True,
        needs=needs,
        fields=encoded,
        cap_param="sampling.max_output_tokens",
        prompt_bytes=messages.text_bytes
        + sum(memoryview(encoded[name]).nbytes for name in _COUNTED if name in encoded),
    )


def _add_sampling(sampling: Sampling, fields: Rendered) -> None:
    """The sampling as OpenAI's top-level fields."""
    named: dict[str, Any] = {
        # The older name: every provider knows it.
        "max_tokens": sampling.max_output_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop": sampling.stop or None,
        "seed": sampling.seed,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    fields.update({name: value for name, value in named.items() if value is not None})
