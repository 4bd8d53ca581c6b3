"""Reads OpenAI's chat completion request: the top level only, everything else stays the client's bytes.

`read` checks what every target needs and collects what not every target can do (`needs`). The same value is made from
the typed contract by dialects.typed_request, so that use cases know one kind of request.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from dialects.chat_messages import Beyond, read_messages
from dialects.chat_sampling import read_sampling
from dialects.chat_tools import TOOL_FIELDS, read_tool_use
from dialects.json_fields import Fields, top_level
from dialects.parameters import (
    FALLBACKS,
    HINT,
    LABEL,
    MAX_CHOICES,
    MODEL,
    Parameter,
    note_needs,
    read_choices,
    read_fallbacks,
    read_model,
    read_stream,
)
from dialects.request import Request
from gen.weir.router.v1 import GenerateRequest

PARAMETERS: Final[Mapping[str, Parameter]] = MappingProxyType({
    "model": MODEL,
    "messages": Parameter(note="required; pictures need `vision`, sound `audio`, files `file`, tool messages `tools`"),
    "prompt": Parameter(note="Weir's own: one user message, and sent on as that"),
    "max_completion_tokens": Parameter(note="absent: the target's own default"),
    "max_tokens": Parameter(note="the older name; `max_completion_tokens` counts where both are given"),
    "temperature": Parameter(),
    "top_p": Parameter(),
    "stop": Parameter(note="at most 4, none empty"),
    "seed": Parameter(),
    "presence_penalty": Parameter(),
    "frequency_penalty": Parameter(),
    "stream": Parameter(),
    "stream_options": Parameter(note="`include_usage`; a provider is always asked for it"),
    "user": LABEL,
    "metadata": LABEL,
    "safety_identifier": LABEL,
    "prompt_cache_key": HINT,
    "prompt_cache_retention": HINT,
    "prompt_cache_options": HINT,
    "n": Parameter("n", (1,), note=f"1 to {MAX_CHOICES}"),
    "tools": Parameter(
        "tools", note="another type than `function` needs `tools.<type>`, `strict` and unknown fields `tools.<field>`"
    ),
    # Without tools, whose own need counts, `auto` and `none` choose among none.
    "tool_choice": Parameter("tool_choice", ("auto", "none"), note="`auto` and `none` need no more than `tools`"),
    "parallel_tool_calls": Parameter("tools", (True,)),
    "functions": Parameter("functions", note="the older name of `tools`"),
    "function_call": Parameter("functions", ("auto", "none"), note="the older name of `tool_choice`"),
    "response_format": Parameter(
        "json_schema", ({"type": "text"},), note="an unknown type needs `response_format.<type>`"
    ),
    "audio": Parameter("audio"),
    "logit_bias": Parameter("logit_bias"),
    "logprobs": Parameter("logprobs"),
    "top_logprobs": Parameter("top_logprobs"),
    "modalities": Parameter("modalities", (["text"],)),
    "moderation": Parameter("moderation"),
    "prediction": Parameter("prediction"),
    "reasoning_effort": Parameter("reasoning_effort"),
    "service_tier": Parameter("service_tier", ("auto", "default")),
    "store": Parameter("store"),
    "verbosity": Parameter("verbosity"),
    "web_search_options": Parameter("web_search_options", nothing=(None,), note="`{}` too asks for a search"),
    "fallbacks": FALLBACKS,
})  # fmt: skip
"""Every parameter that is known; any other is a need of its own name."""
_ENCODER = msgspec.json.Encoder()


def read(body: bytes) -> Request:
    """The request in `body`. Raises InvalidRequest naming the field at fault."""
    return read_fields(top_level(body), len(body))


def read_fields(fields: Fields, body_bytes: int) -> Request:
    """The request that these top-level fields make. Raises InvalidRequest naming the field at fault.

    `prompt` becomes `messages` in `fields`, since no provider knows it under that name.
    """
    beyond = Beyond()
    messages = read_messages(fields, beyond)
    needs = beyond.needs
    note_needs(fields, PARAMETERS, needs)
    stream, include_usage = read_stream(fields)
    if fields.pop("prompt", None) is not None:
        fields["messages"] = msgspec.Raw(_ENCODER.encode([{"role": "user", "content": messages[0].content}]))
    typed = GenerateRequest(model=read_model(fields), messages=messages, sampling=read_sampling(fields))
    if not TOOL_FIELDS.isdisjoint(fields):
        read_tool_use(fields, typed, needs)
    return Request(
        typed=typed,
        stream=stream,
        include_usage=include_usage,
        needs=needs,
        fields=fields,
        prompt_bytes=body_bytes - beyond.media_bytes,
        cap_param="max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens",
        choices=read_choices(fields),
        fallbacks=read_fallbacks(fields),
    )
