"""The fake provider's /responses: chat completions in the form of OpenAI's Responses API."""

from __future__ import annotations

import json
from typing import Any

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_MESSAGE_ID = "msg_fake"
_DONE = b"[DONE]"


class ResponsesRendering:
    """One answer. A stream has a terminal event once a finish reason was said and [DONE] or the clean end came."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._number = -1
        self._begun = False
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None
        self._ended = False

    def whole(self, body: bytes) -> bytes:
        """A chat.completion as a response; anything else as it is."""
        chat = _json(body)
        if chat.get("object") != "chat.completion":
            return body
        for choice in chat["choices"]:
            message = choice["message"]
            self._said({"content": message.get("content"), "tool_calls": message.get("tool_calls")})
            self._close()
            self._finish = choice["finish_reason"]
        self._usage = chat.get("usage")
        self._model = chat.get("model", self._model)
        document = self._response(self._status())
        if "provider" in chat:
            document["provider"] = chat["provider"]
        return _compact(document)

    def event(self, data: bytes) -> list[bytes]:
        """A chunk's named events; [DONE] becomes the terminal one, and an error the `error` event."""
        if data == _DONE:
            return self.end()
        chat = _json(data)
        if isinstance(fault := chat.get("error"), dict):
            told = {key: fault.get(key) for key in ("code", "message", "param")}
            return [self._named("error", **told)]
        if chat.get("object") != "chat.completion.chunk":
            return [b"data: %b\n\n" % data]
        self._usage = chat.get("usage") or self._usage
        events = self._begin()
        for choice in chat["choices"]:
            events += self._said(choice["delta"])
            if choice["finish_reason"]:
                events += self._close()
                self._finish = choice["finish_reason"]
        return events

    def end(self) -> list[bytes]:
        """The terminal event, unless the answer was cut before it or had it."""
        if self._finish is None or self._ended:
            return []
        self._ended = True
        status = self._status()
        return [self._named(f"response.{status}", response=self._response(status))]

    def _begin(self) -> list[bytes]:
        if self._begun:
            return []
        self._begun = True
        response = self._response("in_progress")
        return [self._named(f"response.{name}", response=response) for name in ("created", "in_progress")]

    def _said(self, delta: dict[str, Any]) -> list[bytes]:
        events = []
        if content := delta.get("content"):
            events += self._message()
            assert self._open is not None
            self._open["content"][0]["text"] += content
            events.append(self._of_part("response.output_text.delta", delta=content, logprobs=[]))
        for call in delta.get("tool_calls") or []:
            events += self._call(call)
        return events

    def _message(self) -> list[bytes]:
        """Opens a message unless one is open."""
        if self._open is not None and self._open["type"] == "message":
            return []
        events = self._close()
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        item = {
            "type": "message", "id": _MESSAGE_ID, "status": "in_progress", "role": "assistant", "content": [part],
        }  # fmt: skip
        events += self._open_item(item, {**item, "content": []})
        return [*events, self._of_part("response.content_part.added", part=dict(part))]

    def _call(self, call: dict[str, Any]) -> list[bytes]:
        function, events = call.get("function") or {}, []
        if call.get("id"):
            item = {
                "type": "function_call", "id": f"fc_{call['id']}", "call_id": call["id"],
                "name": function.get("name", ""), "arguments": "", "status": "in_progress",
            }  # fmt: skip
            events = [*self._close(), *self._open_item(item, item)]
        assert self._open is not None
        if more := function.get("arguments"):
            self._open["arguments"] += more
            events.append(self._of_item("response.function_call_arguments.delta", delta=more))
        return events

    def _open_item(self, item: dict[str, Any], shown: dict[str, Any]) -> list[bytes]:
        self._open = item
        self._output.append(item)
        place = len(self._output) - 1
        return [self._named("response.output_item.added", output_index=place, item=shown)]

    def _close(self) -> list[bytes]:
        """The events that end the open item."""
        item = self._open
        if item is None:
            return []
        item["status"] = "completed"
        if item["type"] == "message":
            (part,) = item["content"]
            events = [
                self._of_part("response.output_text.done", text=part["text"], logprobs=[]),
                self._of_part("response.content_part.done", part=part),
            ]
        else:
            done = "response.function_call_arguments.done"
            events = [self._of_item(done, arguments=item["arguments"])]
        place = len(self._output) - 1
        self._open = None
        return [*events, self._named("response.output_item.done", output_index=place, item=item)]

    def _of_part(self, name: str, **fields: Any) -> bytes:
        return self._of_item(name, content_index=0, **fields)

    def _of_item(self, name: str, **fields: Any) -> bytes:
        assert self._open is not None
        return self._named(name, item_id=self._open["id"], output_index=len(self._output) - 1, **fields)

    def _named(self, name: str, **fields: Any) -> bytes:
        self._number += 1
        data = _compact({"type": name, "sequence_number": self._number, **fields})
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)

    def _status(self) -> str:
        return "incomplete" if self._finish in _INCOMPLETE else "completed"

    def _response(self, status: str) -> dict[str, Any]:
        reason = _INCOMPLETE.get(self._finish or "")
        done = status != "in_progress"
        return {
            "id": "resp_fake",
            "object": "response",
            "created_at": 1_700_000_000,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "instructions": None,
            "metadata": {},
            "model": self._model,
            "output": self._output if done else [],
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": _usage(self._usage) if done and self._usage else None,
        }


def _usage(chat: dict[str, Any]) -> dict[str, Any]:
    """Chat's counts under the names of the Responses API."""
    prompt = chat.get("prompt_tokens_details") or {}
    completion = chat.get("completion_tokens_details") or {}
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": prompt.get("cached_tokens", 0), "cache_write_tokens": 0},
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": completion.get("reasoning_tokens", 0)},
        "total_tokens": chat["total_tokens"],
    }


def _json(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _compact(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
