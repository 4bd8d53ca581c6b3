"""Reads a provider's answer of OpenAI's Responses API once: what it says, and the bytes to pass on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from dialects.openai_fault import Fault, fault_of
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
    value_in,
)
from dialects.usage_reading import read_usage
from gen.weir.type.v1 import FinishReason, ToolCallDelta

MAX_ITEMS: Final = 1_024
"""Tool calls of one answer; further ones are malformed events. Each is remembered until the answer ends."""
_WHAT = "response"
_FUNCTION = "function_call"
_CLIENTS = frozenset({_FUNCTION, "custom_tool_call", "computer_call", "local_shell_call"})
"""Calls that the client answers, hence those at which an answer ends; the others run at the provider."""
_FAILED = frozenset({"response.failed", "response.cancelled"})
_ENDS = frozenset({"response.completed", "response.incomplete"})
_WITHOUT_CONTENT = frozenset({"response.created", "response.queued", "response.in_progress"})
_INCOMPLETE: Mapping[str, FinishReason] = MappingProxyType({"content_filter": FinishReason.CONTENT_FILTER})
_CHOICE = (0,)
_EMPTY_ITEM: Mapping[str, Any] = MappingProxyType({})
_DOCUMENT = msgspec.json.Decoder(Top)
_ITEMS = msgspec.json.Decoder(list[dict[str, Any]])
_ITEM = msgspec.json.Decoder(dict[str, Any])
_INDEX = msgspec.json.Decoder(int)


class ResponsesReading:
    """Reads one answer, event by event or whole. One for each answer: parts of a tool call refer to its beginning."""

    def __init__(self) -> None:
        self._said_text = False
        self._ends_in_call = False
        self._calls: dict[int, int] = {}
        """Place in the output -> number among the function calls."""
        self._said_arguments: set[int] = set()

    def read_whole(self, body: bytes) -> AnswerBody:
        """Reads a whole answer. Raises MalformedAnswerError if it is no JSON object or has no list under `output`."""
        top = read_top(body, _WHAT)
        if (fault := fault_in(top)) is not None:
            return AnswerBody(b"", fault=fault)
        if (fault := _failure(top)) is not None:
            return AnswerBody(b"", fault=fault)
        items = _items(top)
        return self._at_end(top, items, one_line(top))

    def read_event(self, data: bytes) -> AnswerBody:
        """Reads the data of one event of a stream.

        Raises MalformedAnswerError if it is no JSON object, or refers to what was not begun.
        """
        top = read_top(data, "event of a response")
        kind = text_in(top, "type")
        passed_on = one_line(top)
        if kind == "response.output_text.delta":
            return self._text(text_in(top, "delta"), passed_on)
        if (fault := _event_fault(kind, top)) is not None:
            return AnswerBody(b"", fault=fault)
        if kind in _ENDS:
            document = _document(top)
            items = _items(document) if "output" in document else []
            return self._at_end(document, items, passed_on)._replace(terminal=True)
        if kind in _WITHOUT_CONTENT:
            return AnswerBody(passed_on, model=text_in(_document(top), "model"), choices=_CHOICE)
        return self._part(kind, top, passed_on)

    def _text(self, delta: str, passed_on: bytes) -> AnswerBody:
        self._said_text = self._said_text or bool(delta)
        return AnswerBody(passed_on, delta, choices=_CHOICE, content=True)

    def _part(self, kind: str, top: Top, passed_on: bytes) -> AnswerBody:
        """An event of an item, or one that nobody here knows: passed on; life, but no content, if of no response."""
        calls: tuple[ToolCallDelta, ...] = ()
        tool_call = False
        if kind in {"response.output_item.added", "response.output_item.done"}:
            item = _item(top)
            tool_call = as_text(item.get("type")).endswith("_call")
            calls = self._call(_place(top), item) if tool_call else ()
        elif kind == "response.function_call_arguments.delta":
            tool_call = True
            calls = self._arguments(_place(top), text_in(top, "delta"))
        content = kind.startswith("response.")
        return AnswerBody(passed_on, tool_call=tool_call, choices=_CHOICE, content=content, tool_calls=calls)

    def _call(self, place: int, item: Mapping[str, Any]) -> tuple[ToolCallDelta, ...]:
        """The beginning of a call where it is new, and its arguments where none were said yet."""
        kind = as_text(item.get("type"))
        self._ends_in_call = self._ends_in_call or kind in _CLIENTS
        if kind != _FUNCTION:
            return ()
        new = place not in self._calls
        if new:
            if len(self._calls) >= MAX_ITEMS:
                raise MalformedAnswerError(f"over {MAX_ITEMS} tool calls in one response")
            self._calls[place] = len(self._calls)
        arguments = "" if place in self._said_arguments else as_text(item.get("arguments"))
        if arguments:
            self._said_arguments.add(place)
        if not (new or arguments):
            return ()
        return (
            ToolCallDelta(
                index=self._calls[place],
                id=as_text(item.get("call_id")) if new else "",
                name=as_text(item.get("name")) if new else "",
                arguments=arguments,
            ),
        )

    def _arguments(self, place: int, delta: str) -> tuple[ToolCallDelta, ...]:
        if place not in self._calls:
            raise MalformedAnswerError("arguments of a call that was not begun")
        self._said_arguments.add(place)
        return (ToolCallDelta(index=self._calls[place], arguments=delta),)

    def _at_end(self, document: Top, items: list[dict[str, Any]], passed_on: bytes) -> AnswerBody:
        """What the whole response says, less what its events said before."""
        text = "" if self._said_text else "".join(map(_item_text, items))
        calls: tuple[ToolCallDelta, ...] = ()
        if not self._calls:
            for place, item in enumerate(items):
                calls += self._call(place, item)
        return AnswerBody(
            passed_on,
            text,
            tool_call=any(as_text(item.get("type")).endswith("_call") for item in items),
            finish_reason=self._finish_reason(document),
            usage=read_usage(document),
            model=text_in(document, "model"),
            choices=_CHOICE,
            ended_choices=_CHOICE,
            content=True,
            tool_calls=calls,
        )

    def _finish_reason(self, document: Top) -> FinishReason:
        status = text_in(document, "status")
        if status == "incomplete":
            reason = text_in(_document(document, "incomplete_details"), "reason")
            return _INCOMPLETE.get(reason, FinishReason.LENGTH)
        if status in {"queued", "in_progress"}:  # of a response that runs in the background
            return FinishReason.UNSPECIFIED
        return FinishReason.TOOL_CALLS if self._ends_in_call else FinishReason.STOP


def _event_fault(kind: str, top: Top) -> Fault | None:
    """The fault that an event tells. An `error` event's fields stand in the event itself or under `error`."""
    if kind in _FAILED:
        return _failure(_document(top)) or Fault("")
    fault = fault_in(top)
    if fault is not None or kind != "error":
        return fault
    return fault_of({key: value_in(top, key) for key in ("code", "message", "param")})


def _failure(document: Top) -> Fault | None:
    """The fault of a response that failed."""
    fault = fault_in(document)
    if fault is None and text_in(document, "status") in {"failed", "cancelled"}:
        return Fault("")
    return fault


def _document(top: Top, key: str = "response") -> Top:
    """The object under `key`; an empty one where there is none."""
    try:
        return _DOCUMENT.decode(top[key]) if key in top else {}
    except UNREADABLE:
        return {}


def _items(document: Top) -> list[dict[str, Any]]:
    try:
        return _ITEMS.decode(document["output"])
    except KeyError as error:
        raise MalformedAnswerError("no response: it has no output") from error
    except UNREADABLE as error:
        raise MalformedAnswerError(f"no response: {error}") from error


def _item(top: Top) -> Mapping[str, Any]:
    try:
        return _ITEM.decode(top["item"]) if "item" in top else _EMPTY_ITEM
    except UNREADABLE as error:
        raise MalformedAnswerError(f"no item of a response: {error}") from error


def _place(top: Top) -> int:
    try:
        return _INDEX.decode(top["output_index"])
    except (KeyError, *UNREADABLE) as error:
        raise MalformedAnswerError(f"an item without its place: {error}") from error


def _item_text(item: dict[str, Any]) -> str:
    """The text of a message; nothing for whatever else an item may be."""
    content = item.get("content") if item.get("type") == "message" else None
    parts = content if isinstance(content, list) else []
    return "".join(
        as_text(part.get("text"))
        for part in parts
        if isinstance(part, dict) and part.get("type") == "output_text"
    )
