"""Renders OpenAI's older completions, as one JSON object or as SSE events.

For a provider's answers the objects are its own bytes, with Weir's `provider` put in front; for those of our own models
they are made here. Stream and whole answer have the same object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dialects.chat_answer import DONE_EVENT, finish_name, usage_object
from dialects.rendering import AnswerHead, Bill, UsageAtEnd, passed_on, sse, whole_passed_on
from gen.weir.cloud.v1 import GenerateResponse as Piece
from meshkit.errors import WeirError, openai_error_json

ID_PREFIX = "cmpl-"
_ENCODER = msgspec.json.Encoder()


class CompletionRendering:
    """One completion (dialects.rendering.Rendering).

    Args:
        include_usage: the client asked for usage at the end of its stream.
    """

    def __init__(self, *, include_usage: bool) -> None:
        self._usage = UsageAtEnd(wanted=include_usage)

    def events(self, head: AnswerHead, piece: Piece, bill: Bill | None) -> bytes:
        """The objects of one piece; `[DONE]` after the finished one."""
        bodies = passed_on(head, piece, bill) if head.native else _own(head, piece)
        if self._usage.owed(piece) and bill is not None:
            bodies.append(_object(head, [], usage=usage_object(bill)))
        return sse(bodies) + (DONE_EVENT if piece.finished else b"")

    def error(self, error: WeirError) -> bytes:
        """An error event: neither a finish reason nor `[DONE]` follows."""
        return sse([openai_error_json(error).encode("ascii")])

    def whole(self, head: AnswerHead, pieces: Sequence[Piece], bill: Bill) -> bytes:
        """One `text_completion`."""
        if head.native:
            return whole_passed_on(head, pieces, bill, usage_object(bill))
        text = "".join([piece.text for piece in pieces])
        return _object(head, [_choice(text, finish_name(pieces))], usage=usage_object(bill))


def _own(head: AnswerHead, piece: Piece) -> list[bytes]:
    if piece.finished:
        return [_object(head, [_choice(piece.text, finish_name([piece]))])]
    return [_object(head, [_choice(piece.text, None)])] if piece.text else []


def _choice(text: str, finish: str | None) -> dict[str, Any]:
    return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}


def _object(head: AnswerHead, choices: list[dict[str, Any]], **more: Any) -> bytes:
    return _ENCODER.encode({
        "id": ID_PREFIX + head.id,
        "object": "text_completion",
        "created": head.created_s,
        "model": head.model,
        "provider": head.provider,
        "choices": choices,
        **more,
    })  # fmt: skip
