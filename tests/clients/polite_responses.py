"""The Responses API as OpenAI documents it: text and function calls, whole and as events."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from tests.clients.polite_chat import CREATED_S, calls_for, pieces, text_for

Body = dict[str, Any]
USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 21,
}


def response(body: Body) -> Body:
    """A response that is complete."""
    return _response(body, "completed", _output(body))


def events(body: Body) -> Iterator[Body]:
    """Its events, in order."""
    numbers = itertools.count()
    for event in _unnumbered(body):
        yield {**event, "sequence_number": next(numbers)}


def _unnumbered(body: Body) -> Iterator[Body]:
    begun = _response(body, "in_progress", [])
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    output = _output(body)
    for place, item in enumerate(output):
        where = {"output_index": place, "item_id": item["id"]}
        yield from _message(item, where) if item["type"] == "message" else _call(item, where)
        yield {"type": "response.output_item.done", "output_index": place, "item": item}
    yield {"type": "response.completed", "response": _response(body, "completed", output)}


def _message(item: Body, where: Body) -> Iterator[Body]:
    begun = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": where["output_index"], "item": begun}
    (part,) = item["content"]
    where = {**where, "content_index": 0}
    yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
    for word in pieces(part["text"]):
        yield {"type": "response.output_text.delta", **where, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **where, "part": part}


def _call(item: Body, where: Body) -> Iterator[Body]:
    begun = {**item, "status": "in_progress", "arguments": ""}
    yield {"type": "response.output_item.added", "output_index": where["output_index"], "item": begun}
    kind = "response.function_call_arguments"
    for piece in pieces(item["arguments"]):
        yield {"type": f"{kind}.delta", **where, "delta": piece}
    yield {"type": f"{kind}.done", **where, "arguments": item["arguments"]}


def _output(body: Body) -> list[Body]:
    given = body["input"]
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    tools = body.get("tools") or []
    if tools and messages[-1].get("type") != "function_call_output":
        calls = calls_for(tools, parallel=body.get("parallel_tool_calls", True))
        return [
            {
                "type": "function_call", "id": f"fc_{place}", "call_id": f"call_{place}", "name": name,
                "arguments": arguments, "status": "completed",
            }
            for place, (name, arguments) in enumerate(calls)
        ]  # fmt: skip
    if messages[-1].get("type") == "function_call_output":
        messages = [{"role": "user", "content": messages[-1]["output"]}]
    text = text_for(body, (body.get("text") or {}).get("format"), messages)
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return [{"type": "message", "id": "msg_0", "status": "completed", "role": "assistant", "content": [part]}]


def _response(body: Body, status: str, output: list[Body]) -> Body:
    return {
        "id": "resp_polite",
        "object": "response",
        "created_at": CREATED_S,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": body["model"],
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": [{"description": None, "strict": True, **tool} for tool in body.get("tools") or []],
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": USAGE if status == "completed" else None,
        "user": body.get("user"),
    }
