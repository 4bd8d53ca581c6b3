"""Reads a provider's chat completion, text completion, or chunk of either, once: what it says, and what to pass on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from dialects.provider_body import (
    UNREADABLE,
    AnswerBody,
    MalformedAnswerError,
    Top,
    as_text,
    fault_in,
    one_line,
    read_top,
    text_in,
)
from dialects.usage_reading import read_usage
from gen.weir.type.v1 import FinishReason, ToolCallDelta, Usage

_NULL = b"null"
_NOT_ENDED = FinishReason.UNSPECIFIED
_BROKE = "error"
"""What some gateways write as the finish reason of an answer that broke: it did not end."""
_FINISH: Mapping[str, FinishReason] = MappingProxyType({
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    _BROKE: _NOT_ENDED,
})  # fmt: skip
_MOST_INDEXES = 2**32


class _Said(msgspec.Struct, gc=False):
    content: Any = None
    tool_calls: list[Any] | None = None
    function_call: dict[str, Any] | None = None
    refusal: Any = None
    audio: Any = None
    # What OpenAI does not have: thoughts, under the names that servers of open models and gateways give them; pictures.
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    images: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    finish_reason: str | None = None
    delta: _Said | None = None
    message: _Said | None = None
    text: Any = None
    """Of a text completion."""


_CHOICES = msgspec.json.Decoder(list[_Choice] | None)


def read_answer(body: bytes, *, hide_stream_usage: bool = False) -> AnswerBody:
    """Reads one body, of a stream or not. Duplicate keys collapse to the last.

    Args:
        body: UTF-8 JSON as the provider sent it.
        hide_stream_usage: drop a chunk that holds nothing but usage, and the null `usage` of the others.

    Raises:
        MalformedAnswerError: it is no JSON object, or its `choices` are no choices.
    """
    top = read_top(body, "completion")
    try:
        choices = _CHOICES.decode(top["choices"]) if "choices" in top else None
    except UNREADABLE as error:
        raise MalformedAnswerError(f"no completion: {error}") from error
    if (fault := fault_in(top)) is not None:
        return AnswerBody(b"", fault=fault)
    usage = read_usage(top) if "usage" in top else None
    hidden = hide_stream_usage and _hide_usage(top, usage, choices)
    passed_on = b"" if hidden else one_line(top)
    model = text_in(top, "model")
    if not choices:
        return AnswerBody(passed_on, usage=usage, model=model)
    return _of_choices(choices, passed_on, usage, model)


def _of_choices(choices: list[_Choice], passed_on: bytes, usage: Usage | None, model: str) -> AnswerBody:
    text, finish, content = "", _NOT_ENDED, False
    calls: tuple[ToolCallDelta, ...] = ()
    tool_call = False
    seen, ended = [], []
    for choice in choices:
        seen.append(choice.index)
        said = choice.delta or choice.message
        first = choice.index == 0
        if said is not None:
            if said.tool_calls or said.function_call:
                tool_call = True
                if first:
                    calls += _tool_calls(said)
            if said.content and first:
                text += _text(said.content)
            content = content or _says_something(said)
        elif choice.text:
            content = True
            text += as_text(choice.text) if first else ""
        if (named := choice.finish_reason) and named != _BROKE:
            content = True
            ended.append(choice.index)
            finish = _FINISH.get(named, FinishReason.STOP) if first else finish
    return AnswerBody(
        passed_on, text, tool_call, finish, usage, model, tuple(seen), tuple(ended), None, content, calls
    )


def _says_something(said: _Said) -> bool:
    return bool(
        said.content
        or said.tool_calls
        or said.function_call
        or said.reasoning_content
        or said.reasoning
        or said.reasoning_details
        or said.refusal
        or said.audio
        or said.images
    )


def _tool_calls(said: _Said) -> tuple[ToolCallDelta, ...]:
    """The calls, or parts of calls, in either of OpenAI's spellings."""
    if not said.tool_calls:
        return (_tool_call(0, {"function": said.function_call}),)
    return tuple(
        _tool_call(place, call) for place, call in enumerate(said.tool_calls) if isinstance(call, dict)
    )


def _tool_call(place: int, call: dict[str, Any]) -> ToolCallDelta:
    """One of them; whole answers, and some servers' streams, number none: then its place in the list counts."""
    function, index = call.get("function"), call.get("index")
    if not isinstance(function, dict):
        function = {}
    arguments = function.get("arguments")
    if isinstance(arguments, dict):  # servers of open models send the object itself
        arguments = msgspec.json.encode(arguments).decode()
    return ToolCallDelta(
        index=index if isinstance(index, int) and 0 <= index < _MOST_INDEXES else place,
        id=as_text(call.get("id")),
        name=as_text(function.get("name")),
        arguments=as_text(arguments),
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    # Some reasoning models send a list of typed parts.
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text")
    return "".join(text for text in texts if isinstance(text, str))


def _hide_usage(top: Top, usage: Usage | None, choices: list[_Choice] | None) -> bool:
    """Removes a null `usage`; True if the whole body is to be hidden."""
    if "usage" in top and bytes(top["usage"]) == _NULL:
        del top["usage"]
    return usage is not None and not choices
