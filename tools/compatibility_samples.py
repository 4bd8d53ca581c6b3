"""One request for every parameter of OpenAI's endpoints, in which it asks for something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from dialects import chat_request, completion_request, embedding_request, responses_request
from dialects.parameters import Parameter
from dialects.request import Request


class Endpoint(NamedTuple):
    """One endpoint: its reader, the table that the reader obeys, and what to try on it."""

    path: str
    read: Callable[[bytes], Request]
    parameters: Mapping[str, Parameter]
    least: Mapping[str, Any]
    """The least request that there can be."""
    samples: Mapping[str, Any]
    """A value for each parameter."""
    beside: Mapping[str, Mapping[str, Any]]
    """What a parameter has a meaning with, where it has none alone."""


_FUNCTION: Final = {"name": "now", "parameters": {"type": "object"}}
_TOOLS: Final = [{"type": "function", "function": _FUNCTION}]
_SAMPLING: Final = {"temperature": 0.5, "top_p": 0.5}
_OLDER_SAMPLING: Final = {
    **_SAMPLING, "stop": ["x"], "seed": 7, "presence_penalty": 0.5, "frequency_penalty": 0.5, "n": 2,
    "logit_bias": {"50256": -100},
}  # fmt: skip
_STREAM: Final = {"stream": True, "stream_options": {"include_usage": False}}
_SHARED: Final = {"model": "a", "fallbacks": ["b"], "user": "someone"}
_LABELS: Final = {
    "metadata": {"a": "b"}, "safety_identifier": "a", "prompt_cache_key": "a", "prompt_cache_retention": "24h",
    "prompt_cache_options": {"ttl": "30m"}, "service_tier": "flex", "store": True, "moderation": {"model": "a"},
}  # fmt: skip

ENDPOINTS: Final = (
    Endpoint(
        "/v1/chat/completions",
        chat_request.read,
        chat_request.PARAMETERS,
        MappingProxyType({"messages": [{"role": "user", "content": "a"}]}),
        MappingProxyType({
            **_SHARED, **_OLDER_SAMPLING, **_STREAM, **_LABELS,
            "messages": [{"role": "user", "content": "b"}],
            "prompt": "b",
            "max_completion_tokens": 5,
            "max_tokens": 5,
            "tools": _TOOLS,
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "functions": [_FUNCTION],
            "function_call": {"name": "now"},
            "response_format": {"type": "json_object"},
            "audio": {"voice": "a", "format": "mp3"},
            "logprobs": True,
            "top_logprobs": 2,
            "modalities": ["text", "audio"],
            "prediction": {"type": "content", "content": "a"},
            "reasoning_effort": "low",
            "verbosity": "low",
            "web_search_options": {},
        }),
        MappingProxyType({"prompt": {"messages": None}, "parallel_tool_calls": {"tools": _TOOLS}}),
    ),
    Endpoint(
        "/v1/completions",
        completion_request.read,
        completion_request.PARAMETERS,
        MappingProxyType({"prompt": "a"}),
        MappingProxyType({
            **_SHARED, **_OLDER_SAMPLING, **_STREAM,
            "prompt": "b", "max_tokens": 5, "best_of": 2, "echo": True, "logprobs": 0, "suffix": "c",
        }),
        MappingProxyType({}),
    ),
    Endpoint(
        "/v1/embeddings",
        embedding_request.read,
        embedding_request.PARAMETERS,
        MappingProxyType({"model": "a", "input": "a"}),
        MappingProxyType({**_SHARED, "input": ["b", "c"], "encoding_format": "base64", "dimensions": 64}),
        MappingProxyType({}),
    ),
    Endpoint(
        "/v1/responses",
        responses_request.read,
        responses_request.PARAMETERS,
        MappingProxyType({"input": "a"}),
        MappingProxyType({
            **_SHARED, **_SAMPLING, **_LABELS,
            "input": [{"role": "user", "content": "b"}],
            "instructions": "c",
            "max_output_tokens": 16,
            "tools": [{"type": "function", **_FUNCTION}],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "text": {"format": {"type": "text"}},
            "reasoning": {},
            "stream": True,
            "stream_options": {},
            "truncation": "auto",
            "background": True,
            "background_options": {"a": 1},
            "previous_response_id": "resp_1",
            "conversation": "conv_1",
            "prompt": {"id": "pmpt_1"},
            "include": ["message.output_text.logprobs"],
            "max_tool_calls": 2,
            "top_logprobs": 2,
            "context_management": [{"type": "compaction"}],
            "access_programs": ["a"],
            "image": {"a": 1},
        }),
        MappingProxyType({"parallel_tool_calls": {"tools": [{"type": "function", **_FUNCTION}]}}),
    ),
)  # fmt: skip
