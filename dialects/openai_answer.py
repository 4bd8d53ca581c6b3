"""Reads a provider's `chat.completion` or `chat.completion.chunk` once: what it says, and the bytes to pass on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import msgspec

from dialects.openai_fault import Fault, fault_of
from gen.weir.type.v1 import FinishReason, Usage

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
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class MalformedAnswerError(ValueError):
    """A body that is no JSON object, or whose choices are none."""


class AnswerBody(NamedTuple):
    """What one body says."""

    passed_on: bytes
    """A JSON object on one line without `provider`; empty where nothing is to be passed on."""
    text: str = ""
    """What it adds to the text of choice 0."""
    tool_call: bool = False
    """True if any choice holds a tool call or a part of one."""
    finish_reason: FinishReason = FinishReason.UNSPECIFIED
    """Of choice 0; a reason that OpenAI does not have is STOP."""
    usage: Usage | None = None
    model: str = ""
    choices: tuple[int, ...] = ()
    """The indexes of the choices in it."""
    ended_choices: tuple[int, ...] = ()
    """Those of them that end here."""
    fault: Fault | None = None
    """Set where it is an error instead of an answer."""


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Said(msgspec.Struct, gc=False):
    content: Any = None
    tool_calls: list[Any] | None = None
    function_call: dict[str, Any] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    finish_reason: str | None = None
    delta: _Said | None = None
    message: _Said | None = None


_TOP = msgspec.json.Decoder(dict[str, msgspec.Raw])
_CHOICES = msgspec.json.Decoder(list[_Choice] | None)
_USAGE = msgspec.json.Decoder(_Usage | None)
_MODEL = msgspec.json.Decoder(str | None)
_ENCODER = msgspec.json.Encoder()
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_answer(body: bytes, *, hide_stream_usage: bool = False) -> AnswerBody:
    """Reads one body, of a stream or not. Duplicate keys collapse to the last.

    Args:
        body: UTF-8 JSON as the provider sent it.
        hide_stream_usage: drop a chunk that holds nothing but usage, and the null `usage` of the others.

    Raises:
        MalformedAnswerError: it is no JSON object, or its `choices` are no choices.
    """
    try:
        body.isascii() or body.decode()  # inner values are passed on as they are: msgspec does not look into them
        top = _TOP.decode(body)
        choices = _CHOICES.decode(top["choices"]) if "choices" in top else None
    except _UNREADABLE as error:
        raise MalformedAnswerError(f"no chat completion: {error}") from error
    top.pop("provider", None)
    if "error" in top and (fault := msgspec.json.decode(top["error"])) is not None:
        return AnswerBody(b"", fault=fault_of(fault))
    usage = _usage(top) if "usage" in top else None
    hidden = hide_stream_usage and _hide_usage(top, usage, choices)
    passed_on = b"" if hidden else _one_line(top)
    model = _model(top)
    if not choices:
        return AnswerBody(passed_on, usage=usage, model=model)
    return AnswerBody(passed_on, *_first_choice(choices), usage, model, *_indexes(choices))


def _first_choice(choices: list[_Choice]) -> tuple[str, bool, FinishReason]:
    """Text and finish reason of choice 0; whether any choice holds a tool call."""
    text, tool_call, finish = "", False, _NOT_ENDED
    for choice in choices:
        said = choice.delta or choice.message
        if said is not None:
            tool_call = tool_call or bool(said.tool_calls or said.function_call)
            if choice.index == 0 and said.content:
                text += _text(said.content)
        if choice.index == 0 and choice.finish_reason:
            finish = _FINISH.get(choice.finish_reason, FinishReason.STOP)
    return text, tool_call, finish


def _indexes(choices: list[_Choice]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The choices there are, and those of them that end."""
    seen = tuple([choice.index for choice in choices])
    ended = [choice.index for choice in choices if choice.finish_reason and choice.finish_reason != _BROKE]
    return seen, tuple(ended)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    # Some reasoning models send a list of typed parts.
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text")
    return "".join(text for text in texts if isinstance(text, str))


def _usage(top: dict[str, msgspec.Raw]) -> Usage | None:
    try:
        read = _USAGE.decode(top["usage"])
    except _UNREADABLE:
        return None  # the same as a provider that reports none: the router estimates
    if read is None:
        return None
    details = read.prompt_tokens_details
    return Usage(
        input_tokens=read.prompt_tokens,
        output_tokens=read.completion_tokens,
        cached_input_tokens=None if details is None else details.cached_tokens,
    )


def _hide_usage(top: dict[str, msgspec.Raw], usage: Usage | None, choices: list[_Choice] | None) -> bool:
    """Removes a null `usage`; True if the whole body is to be hidden."""
    if "usage" in top and bytes(top["usage"]) == _NULL:
        del top["usage"]
    return usage is not None and not choices


def _model(top: dict[str, msgspec.Raw]) -> str:
    try:
        return _MODEL.decode(top["model"]) or "" if "model" in top else ""
    except _UNREADABLE:
        return ""


def _one_line(top: dict[str, msgspec.Raw]) -> bytes:
    """The object without line breaks, which would end an event; empty if no key is left."""
    if not top:
        return b""
    body = _ENCODER.encode(top)
    return msgspec.json.format(body, indent=-1) if b"\n" in body or b"\r" in body else body
