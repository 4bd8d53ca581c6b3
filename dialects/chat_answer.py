"""Renders OpenAI's chat completion answers, as one JSON object or as SSE events.

For a provider's answers the objects are its own bytes, with Weir's `provider` put in front. For those of our own
models, and for the rest of an answer that another target began, they are made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import msgspec

from dialects.rendering import (
    AnswerHead,
    Bill,
    UsageAtEnd,
    passed_on,
    sse,
    weir_object,
    whole_passed_on,
)
from gen.weir.cloud.v1 import GenerateResponse as Piece
from gen.weir.type.v1 import FinishReason, ToolCallDelta, Usage
from meshkit.errors import WeirError, openai_error_json

DONE_EVENT = b"data: [DONE]\n\n"
ID_PREFIX = "chatcmpl-"
_ENCODER = msgspec.json.Encoder()
_FINISH: Mapping[int, str] = MappingProxyType({
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.CONTENT_FILTER: "content_filter",
})  # fmt: skip


class _Identified(msgspec.Struct):
    id: str = ""


_CHUNK_ID = msgspec.json.Decoder(_Identified)


class ChatRendering:
    """One chat completion (dialects.rendering.Rendering).

    Args:
        include_usage: the client asked for usage at the end of its stream.
    """

    def __init__(self, *, include_usage: bool) -> None:
        self._usage = UsageAtEnd(wanted=include_usage)
        self._first = True
        self._begun_with = b""
        """The first chunk, where it is a provider's."""
        self._id = ""

    def events(self, head: AnswerHead, piece: Piece, bill: Bill | None) -> bytes:
        """The chunks of one piece; `[DONE]` after the finished one."""
        bodies = passed_on(head, piece, bill) if head.native else self._own(self._identified(head), piece)
        if self._usage.owed(piece) and bill is not None:
            bodies.append(_chunk(self._identified(head), [], usage=usage_object(bill)))
        if bodies and self._first:
            self._first = False
            self._begun_with = piece.bodies[0] if head.native and piece.bodies else b""
        return sse(bodies) + (DONE_EVENT if piece.finished else b"")

    def error(self, error: WeirError) -> bytes:
        """An error event: neither a finish reason nor `[DONE]` follows."""
        return sse([openai_error_json(error).encode("ascii")])

    def whole(self, head: AnswerHead, pieces: Sequence[Piece], bill: Bill) -> bytes:
        """One `chat.completion`."""
        if head.native:
            return whole_passed_on(head, pieces, bill, usage_object(bill))
        calls = collected_calls(pieces)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join([piece.text for piece in pieces]) or (None if calls else ""),
            "refusal": None,
        }
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_name(pieces)}
        return _ENCODER.encode(
            {
                **_head(replace(head, id=_own_id(head)), "chat.completion"),
                "choices": [choice],
                "usage": usage_object(bill),
            }
        )

    def _identified(self, head: AnswerHead) -> AnswerHead:
        """The head with the answer's id. Where a provider began it, that is the provider's, whoever goes on with it."""
        if not self._id:
            self._id = (_id_of(self._begun_with) if self._begun_with else "") or _own_id(head)
        return replace(head, id=self._id)

    def _own(self, head: AnswerHead, piece: Piece) -> list[bytes]:
        deltas: list[dict[str, Any]] = []
        if piece.text or (self._first and piece.finished and not piece.tool_calls):
            deltas.append({"content": piece.text})
        deltas.extend({"tool_calls": [_call_part(part)]} for part in piece.tool_calls)
        if deltas and self._first:
            deltas[0] = {"role": "assistant", "content": None, **deltas[0]}
        bodies = [_chunk(head, [_choice(delta, None)]) for delta in deltas]
        if piece.finished:
            bodies.append(_chunk(head, [_choice({}, finish_name([piece]))]))
        return bodies


def _own_id(head: AnswerHead) -> str:
    return ID_PREFIX + head.id


def _id_of(chunk: bytes) -> str:
    """The id of a provider's chunk; empty where it has none that is a text."""
    try:
        return _CHUNK_ID.decode(chunk).id
    except msgspec.DecodeError:
        return ""


def collected_calls(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """The tool calls of an answer, whole, in OpenAI's shape."""
    calls: dict[int, dict[str, Any]] = {}
    for part in (part for piece in pieces for part in piece.tool_calls):
        call = calls.setdefault(
            part.index, {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": ""}}
        )
        call["function"]["arguments"] += part.arguments
    return [calls[index] for index in sorted(calls)]


def finish_name(pieces: Sequence[Piece]) -> str:
    """OpenAI's word for the last finish reason that the pieces name."""
    reasons = [piece.finish_reason for piece in pieces if piece.finish_reason]
    return _FINISH.get(reasons[-1], "stop") if reasons else "stop"


def usage_object(bill: Bill) -> dict[str, Any]:
    """OpenAI's usage object, with Weir's own in it. Tokens."""
    return {**usage_counts(bill.usage), "weir": weir_object(bill)}


def usage_counts(usage: Usage) -> dict[str, Any]:
    """The counts of OpenAI's usage object. Tokens."""
    counted: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_input_tokens is not None:
        counted["prompt_tokens_details"] = {"cached_tokens": usage.cached_input_tokens}
    if usage.reasoning_output_tokens is not None:
        counted["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_output_tokens}
    return counted


def _call_part(part: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": part.arguments}
    if not part.name:
        return {"index": part.index, "function": function}
    return {
        "index": part.index,
        "id": part.id,
        "type": "function",
        "function": {"name": part.name, **function},
    }


def _choice(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _head(head: AnswerHead, kind: str) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": kind,
        "created": head.created_s,
        "model": head.model,
        "provider": head.provider,
    }


def _chunk(head: AnswerHead, choices: list[dict[str, Any]], **more: Any) -> bytes:
    return _ENCODER.encode({**_head(head, "chat.completion.chunk"), "choices": choices, **more})
