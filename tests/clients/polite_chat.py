"""Chat completions, completions and embeddings as OpenAI documents them: every field, and none beside."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

CREATED_S = 1_790_000_000
DIMENSIONS = 16
Body = dict[str, Any]


def instance(schema: Body) -> Any:
    """The plainest value that follows a JSON Schema."""
    kind = schema.get("type")
    if kind == "object":
        return {name: instance(value) for name, value in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance(schema["items"])]
    plain = {"integer": 1, "number": 0.5, "boolean": True}
    return plain.get(str(kind), schema.get("enum", ["text"])[0])


def said(messages: Sequence[Body]) -> str:
    """What was said last, and how many parts of other kinds came with it."""
    content = messages[-1]["content"]
    if isinstance(content, str):
        return f"You said: {content}"
    texts = " ".join(part["text"] for part in content if part["type"] in {"text", "input_text"})
    others = [part["type"] for part in content if part["type"] not in {"text", "input_text"}]
    return f"You said: {texts}" + "".join(f" [{kind}]" for kind in others)


def text_for(body: Body, form: Body | None, messages: Sequence[Body]) -> str:
    """The answer's text, in the form that was asked for."""
    if form is not None and form["type"] == "json_schema":
        return json.dumps(instance(form.get("json_schema", form)["schema"]))
    if form is not None and form["type"] == "json_object":
        return '{"ok": true}'
    return said(messages)


def calls_for(tools: Sequence[Body], *, parallel: bool) -> list[tuple[str, str]]:
    """Name and arguments of a call of each function, or of the first alone."""
    functions = [tool.get("function", tool) for tool in tools]
    calls = [
        (each["name"], json.dumps(instance(each.get("parameters") or {"type": "object"})))
        for each in functions
    ]
    return calls if parallel else calls[:1]


def usage(output: int) -> Body:
    """With every detail."""
    return {
        "prompt_tokens": 9,
        "completion_tokens": output,
        "total_tokens": 9 + output,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 2, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    }  # fmt: skip


def chat(body: Body) -> Body:
    """A chat.completion."""
    choices = [{"index": number, **_choice(body)} for number in range(body.get("n", 1))]
    return {**_chat_head(body, "chat.completion"), "choices": choices, "usage": usage(12)}


def chat_chunks(body: Body) -> Iterator[Body]:
    """A stream of chat.completion.chunk: role, words or arguments, finish reason and, where asked for, usage."""
    head = _chat_head(body, "chat.completion.chunk")
    if wants_usage := (body.get("stream_options") or {}).get("include_usage", False):
        head["usage"] = None

    def chunk(number: int, delta: Body, finish: str | None = None, logprobs: Any = None) -> Body:
        return {
            **head,
            "choices": [{"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}],
        }

    for number in range(body.get("n", 1)):
        whole = _choice(body)
        message = whole["message"]
        yield chunk(
            number,
            {"role": "assistant", "content": None if message["content"] is None else "", "refusal": None},
        )
        for word in pieces(message["content"] or ""):
            yield chunk(number, {"content": word}, logprobs=_logprobs(body, word))
        for place, call in enumerate(message.get("tool_calls", [])):
            function = call["function"]
            opened = {**call, "index": place, "function": {**function, "arguments": ""}}
            yield chunk(number, {"tool_calls": [opened]})
            for piece in pieces(function["arguments"]):
                yield chunk(number, {"tool_calls": [{"index": place, "function": {"arguments": piece}}]})
        yield chunk(number, {}, whole["finish_reason"])
    if wants_usage:
        yield {**head, "choices": [], "usage": usage(12)}


def completion(body: Body) -> Body:
    """A text_completion."""
    choices = [_text_choice(place, text, "stop") for place, text in enumerate(_continued(body))]
    return {**_completion_head(body), "choices": choices, "usage": usage(12)}


def completion_chunks(body: Body) -> Iterator[Body]:
    """A stream of text_completion."""
    head = _completion_head(body)
    for place, text in enumerate(_continued(body)):
        for word in pieces(text):
            yield {**head, "choices": [_text_choice(place, word, None)]}
        yield {**head, "choices": [_text_choice(place, "", "stop")]}
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": usage(12)}


def embeddings(body: Body) -> Body:
    """One vector for each input; its first number is the input's length."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    data = [
        {
            "object": "embedding",
            "index": place,
            "embedding": _encoded(body, vector(text, body.get("dimensions"))),
        }
        for place, text in enumerate(texts)
    ]
    used = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return {"object": "list", "data": data, "model": body["model"], "usage": used}


def vector(text: str, dimensions: int | None) -> list[float]:
    """Numbers that are exact in 32 bits."""
    return [float(len(text)), *(place / 64 for place in range(1, dimensions or DIMENSIONS))]


def pieces(text: str) -> list[str]:
    """The text in words, each with the space before it."""
    return [f" {word}" if place else word for place, word in enumerate(text.split(" "))] if text else []


def _encoded(body: Body, numbers: list[float]) -> list[float] | str:
    if body.get("encoding_format") != "base64":
        return numbers
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _chat_head(body: Body, kind: str) -> Body:
    return {
        "id": "chatcmpl-polite",
        "object": kind,
        "created": CREATED_S,
        "model": body["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_polite",
    }


def _choice(body: Body) -> Body:
    message: Body = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    tools = body.get("tools") or []
    if tools and body.get("tool_choice") != "none" and body["messages"][-1]["role"] != "tool":
        calls = calls_for(tools, parallel=body.get("parallel_tool_calls", True))
        message["tool_calls"] = [
            {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for place, (name, arguments) in enumerate(calls)
        ]
        return {"message": message, "logprobs": None, "finish_reason": "tool_calls"}
    message["content"] = text_for(body, body.get("response_format"), body["messages"])
    return {"message": message, "logprobs": _logprobs(body, message["content"]), "finish_reason": "stop"}


def _logprobs(body: Body, text: str) -> Body | None:
    if not body.get("logprobs"):
        return None
    tokens = [{"token": word, "logprob": -0.5, "bytes": list(word.encode())} for word in pieces(text)]
    top = body.get("top_logprobs", 0)
    return {"content": [{**token, "top_logprobs": [token] * top} for token in tokens], "refusal": None}


def _completion_head(body: Body) -> Body:
    return {
        "id": "cmpl-polite",
        "object": "text_completion",
        "created": CREATED_S,
        "model": body["model"],
        "system_fingerprint": "fp_polite",
    }


def _continued(body: Body) -> list[str]:
    prompts = [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
    return [f"{prompt} and so on" for prompt in prompts for _ in range(body.get("n", 1))]


def _text_choice(place: int, text: str, finish: str | None) -> Body:
    return {"text": text, "index": place, "logprobs": None, "finish_reason": finish}
