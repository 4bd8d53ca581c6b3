"""Renders OpenAI's chat completion answers, as one JSON object or as SSE events.

For answers of our own model the objects are made here; for a provider's they are its own bytes, with Weir's
`provider` put in front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from gen.weir.type.v1 import FinishReason, Usage

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream"
DONE_EVENT = b"data: [DONE]\n\n"
_ENCODER = msgspec.json.Encoder()
_FINISH: Mapping[int, str] = MappingProxyType({
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.CONTENT_FILTER: "content_filter",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What every object of one answer repeats."""

    id: str
    created_s: int
    """Unix time."""
    model: str
    provider: str

    def fields(self, kind: str) -> dict[str, Any]:
        """The head as JSON fields."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created_s,
            "model": self.model,
            "provider": self.provider,
        }


def completion(head: AnswerHead, text: str, finish: FinishReason, usage: Usage) -> bytes:
    """A whole answer as one `chat.completion`."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(finish)}
    return _ENCODER.encode(
        {**head.fields("chat.completion"), "choices": [choice], "usage": usage_object(usage)}
    )


def delta_chunk(head: AnswerHead, text: str, *, first: bool) -> bytes:
    """A `chat.completion.chunk` with more text; the first one names the role."""
    delta = {"role": "assistant", "content": text} if first else {"content": text}
    return _chunk(head, [_choice(delta, None)])


def finish_chunk(head: AnswerHead, finish: FinishReason) -> bytes:
    """The chunk that says why the answer ended."""
    return _chunk(head, [_choice({}, _finish(finish))])


def usage_chunk(head: AnswerHead, usage: Usage) -> bytes:
    """The chunk without choices that carries usage, for clients that asked for it."""
    return _ENCODER.encode(
        {**head.fields("chat.completion.chunk"), "choices": [], "usage": usage_object(usage)}
    )


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object. Tokens."""
    counted: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_input_tokens is not None:
        counted["prompt_tokens_details"] = {"cached_tokens": usage.cached_input_tokens}
    return counted


def with_provider(body: bytes, provider: str) -> bytes:
    """A provider's compact JSON object, which has no `provider` of its own, with ours in front.

    Args:
        body: a JSON object in compact form (CloudAdapter's contract).
        provider: plain ASCII without quotes.
    """
    rest = body[1:]
    comma = b"" if rest == b"}" else b","
    return b'{"provider":"' + provider.encode("ascii") + b'"' + comma + rest


def sse(bodies: Sequence[bytes]) -> bytes:
    """JSON objects as SSE events, in one piece."""
    return b"".join(b"data: " + body + b"\n\n" for body in bodies)


def _choice(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _chunk(head: AnswerHead, choices: list[dict[str, Any]]) -> bytes:
    return _ENCODER.encode({**head.fields("chat.completion.chunk"), "choices": choices})


def _finish(finish: FinishReason) -> str:
    return _FINISH.get(finish, "stop")
