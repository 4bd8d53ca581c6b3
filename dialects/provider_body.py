"""What all bodies of providers have in common: one JSON object, read at its top level and passed on in one line."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from dialects.openai_fault import Fault, fault_of
from gen.weir.type.v1 import FinishReason, ToolCallDelta, Usage

Top = dict[str, msgspec.Raw]
"""The fields of a body, their values as the provider wrote them."""

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that is none, or not of the type that was asked for."""
_TOP = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str | None)
_ENCODER = msgspec.json.Encoder()


class MalformedAnswerError(ValueError):
    """A body that is no JSON object, or not the kind of answer that it should be."""


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
    content: bool = False
    """True if it holds any part of any choice's answer, be it thought, refusal, sound or the reason of its end."""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    """What it adds to the tool calls of choice 0."""
    terminal: bool = False
    """True for an event that ends the stream by what it says."""


def read_top(body: bytes, what: str) -> Top:
    """The fields of a body, its `provider` removed. Duplicate keys collapse to the last.

    Raises MalformedAnswerError, which says that it is no `what`.
    """
    try:
        body.isascii() or body.decode()  # inner values are passed on as they are: msgspec does not look into them
        top = _TOP.decode(body)
    except UNREADABLE as error:
        raise MalformedAnswerError(f"no {what}: {error}") from error
    top.pop("provider", None)
    return top


def fault_in(top: Top) -> Fault | None:
    """The error that a body is; None where its `error` is absent or null. Raises MalformedAnswerError."""
    error = value_in(top, "error")
    return None if error is None else fault_of(error)


def value_in(top: Top, key: str) -> Any:
    """The value under `key`; None where there is none. Raises MalformedAnswerError: a value is read only here."""
    try:
        return msgspec.json.decode(top[key]) if key in top else None
    except UNREADABLE as error:
        raise MalformedAnswerError(f"its {key} is no JSON: {error}") from error


def text_in(top: Top, key: str) -> str:
    """The text under `key`; empty where there is none."""
    try:
        return _TEXT.decode(top[key]) or "" if key in top else ""
    except UNREADABLE:
        return ""


def as_text(value: Any) -> str:
    """The value if it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def one_line(top: Top) -> bytes:
    """The object without line breaks, which would end an event; empty if no key is left."""
    if not top:
        return b""
    body = _ENCODER.encode(top)
    return msgspec.json.format(body, indent=-1) if b"\n" in body or b"\r" in body else body
