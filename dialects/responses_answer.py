"""Renders the answers of OpenAI's Responses API, as one `response` object or as its named events.

A target that has this API itself sends the very events, which are passed on; of any other's answer they are made here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from dialects.json_node import Node
from dialects.rendering import AnswerHead, Bill, weir_object, whole_passed_on, with_bill, with_provider
from dialects.request import Request
from dialects.responses_output import Event, Output
from gen.weir.cloud.v1 import GenerateResponse as Piece
from gen.weir.type.v1 import FinishReason
from meshkit.errors import WeirError, openai_error

ID_PREFIX = "resp_"
_INCOMPLETE: Mapping[int, str] = MappingProxyType({
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.CONTENT_FILTER: "content_filter",
})  # fmt: skip
"""Why an answer ended that is not whole."""
_ECHO: Mapping[str, msgspec.Raw] = MappingProxyType({
    "instructions": msgspec.Raw(b"null"),
    "max_output_tokens": msgspec.Raw(b"null"),
    "metadata": msgspec.Raw(b"{}"),
    "parallel_tool_calls": msgspec.Raw(b"true"),
    "prompt_cache_key": msgspec.Raw(b"null"),
    "reasoning": msgspec.Raw(b'{"effort":null,"summary":null}'),
    "safety_identifier": msgspec.Raw(b"null"),
    "temperature": msgspec.Raw(b"null"),
    "text": msgspec.Raw(b'{"format":{"type":"text"}}'),
    "tool_choice": msgspec.Raw(b'"auto"'),
    "tools": msgspec.Raw(b"[]"),
    "top_p": msgspec.Raw(b"null"),
    "user": msgspec.Raw(b"null"),
})  # fmt: skip
"""What a response repeats of its request, and what it says where that was absent or null."""
_ALWAYS: Mapping[str, Any] = MappingProxyType({
    "background": False,
    "max_tool_calls": None,
    "previous_response_id": None,
    "store": False,
    "truncation": "disabled",
})  # fmt: skip
"""What an answer made here is, for a request that asks for anything else goes to a target with the API itself."""
_LIFE: Final = frozenset({
    "response.created", "response.queued", "response.in_progress",
    "response.completed", "response.incomplete", "response.failed",
})  # fmt: skip
"""Events that carry the response."""
_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,100}")
_REFUSAL: Final = b'"refusal":"'
_ENCODER = msgspec.json.Encoder()
_TOP = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Numbered(msgspec.Struct):
    type: str = ""
    sequence_number: int = -1


class _Said(msgspec.Struct):
    refusal: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None


class _Chat(msgspec.Struct):
    choices: list[_Choice] = []


_NUMBERED = msgspec.json.Decoder(_Numbered)
_CHAT = msgspec.json.Decoder(_Chat)


class ResponsesRendering:
    """One response (dialects.rendering.Rendering).

    `provider` stands in every `response` object, `weir` in its usage; a provider's other events pass as they are.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._next_number = 0
        self._output: Output | None = None
        self._finish = FinishReason.UNSPECIFIED

    def events(self, head: AnswerHead, piece: Piece, bill: Bill | None) -> bytes:
        """The events of one piece. The last one is `response.completed` or `response.incomplete`; no `[DONE]`."""
        if head.native:
            return b"".join([self._passed_on(body, head, bill) for body in piece.bodies])
        return self._sse(self._made(head, piece, bill))

    def error(self, error: WeirError) -> bytes:
        """The `error` event that OpenAI's schema has, with its `error` object too; nothing follows.

        The official SDK raises on an object under `error` alone: it would hand the bare event, and a
        `response.failed` before it, to a loop that most likely ignores both. Hence this one event, which every
        reader takes for the end, and none that has to invent the rest of a response.
        """
        known = openai_error(error)["error"]
        told = {name: known[name] for name in ("code", "message", "param")}
        return self._sse([{"type": "error", **told, "error": known}])

    def whole(self, head: AnswerHead, pieces: Sequence[Piece], bill: Bill) -> bytes:
        """One `response`."""
        if head.native:
            return whole_passed_on(head, pieces, bill)
        output = self._output = Output(head.id)
        for piece in pieces:
            self._add(output, piece)
        output.end(cut=self._finish in _INCOMPLETE)
        return _ENCODER.encode(self._ended(head, output, bill)[1])

    def _made(self, head: AnswerHead, piece: Piece, bill: Bill | None) -> list[Event]:
        events: list[Event] = []
        output = self._output
        if output is None:
            output = Output(head.id)
        grown = self._add(output, piece)
        if self._output is None and (grown or piece.finished):
            begun = self._response(head, "in_progress")
            events += [{"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")]
            self._output = output
        events += grown
        if piece.finished:
            events += output.end(cut=self._finish in _INCOMPLETE)
            name, response = self._ended(head, output, bill)
            events.append({"type": name, "response": response})
        return events

    def _add(self, output: Output, piece: Piece) -> list[Event]:
        self._finish = piece.finish_reason or self._finish
        return output.add(piece.text, _refusal(piece.bodies), piece.tool_calls)

    def _ended(self, head: AnswerHead, output: Output, bill: Bill | None) -> tuple[str, dict[str, Any]]:
        """The last event's name, and the response."""
        reason = _INCOMPLETE.get(self._finish)
        status = "completed" if reason is None else "incomplete"
        more = {
            "incomplete_details": None if reason is None else {"reason": reason},
            "output": output.objects(),
            "usage": None if bill is None else usage_object(bill),
        }
        return f"response.{status}", {**self._response(head, status), **more}

    def _response(self, head: AnswerHead, status: str) -> dict[str, Any]:
        asked = Node(self._request.fields, "")
        echo = {name: absent if (raw := asked.raw(name)) is None else raw for name, absent in _ECHO.items()}
        return {
            "id": ID_PREFIX + head.id,
            "object": "response",
            "created_at": head.created_s,
            "status": status,
            "provider": head.provider,
            "model": head.model,
            "error": None,
            "incomplete_details": None,
            "output": (),
            "usage": None,
            **_ALWAYS,
            **echo,
        }

    def _sse(self, events: Iterable[Event]) -> bytes:
        parts = []
        for event in events:
            body = _ENCODER.encode({**event, "sequence_number": self._next_number})
            self._next_number += 1
            parts.append(b"event: " + event["type"].encode("ascii") + b"\ndata: " + body + b"\n\n")
        return b"".join(parts)

    def _passed_on(self, body: bytes, head: AnswerHead, bill: Bill | None) -> bytes:
        try:
            event = _NUMBERED.decode(body)
        except msgspec.DecodeError:
            event = _Numbered()  # of a kind that OpenAI does not have
        self._next_number = max(self._next_number, event.sequence_number + 1)
        if event.type in _LIFE:
            body = _with_provider_and_bill(body, head, bill)
        name = b"event: " + event.type.encode("ascii") + b"\n" if _NAME.fullmatch(event.type) else b""
        return name + b"data: " + body + b"\n\n"


def usage_object(bill: Bill) -> dict[str, Any]:
    """The usage object of a response, with Weir's own in it. Tokens; a detail that no target told is 0."""
    usage = bill.usage
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens or 0, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_output_tokens or 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "weir": weir_object(bill),
    }


def _with_provider_and_bill(body: bytes, head: AnswerHead, bill: Bill | None) -> bytes:
    """A provider's event that carries the response."""
    event: dict[str, Any] = dict(_TOP.decode(body))
    try:
        response = _TOP.decode(event["response"])
    except (KeyError, msgspec.DecodeError):
        return body
    response.pop("provider", None)
    told = _ENCODER.encode(response)
    told = with_provider(told if bill is None else with_bill(told, bill), head.provider)
    return _ENCODER.encode({**event, "response": msgspec.Raw(told)})


def _refusal(bodies: Sequence[bytes]) -> str:
    """What the chat completion's objects say of a refusal, which no other field of a piece tells."""
    said = ""
    for body in bodies:
        if _REFUSAL in body:
            try:
                choices = _CHAT.decode(body).choices
            except msgspec.DecodeError:
                continue
            parts = [choice.delta or choice.message for choice in choices if choice.index == 0]
            said += "".join([part.refusal for part in parts if part is not None and part.refusal])
    return said
