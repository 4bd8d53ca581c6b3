"""Where in a Responses request the parts of its translation to a chat completion came from.

Checks and needs are those of the chat completion; what they name is said in the terms of the request that was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from meshkit.errors import InvalidRequest

_NAMES: Mapping[str, str] = MappingProxyType({
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "response_format": "text.format",
})  # fmt: skip
"""Parameters of a chat completion, and what the Responses API calls them."""
_WRAPPERS: Final = (
    (".json_schema", ""),
    (".function", ""),
    (".image_url.url", ".image_url"),
    (".file.", "."),
)
"""Objects of the chat format which the Responses API does without."""
_PLACE: Final = re.compile(r"^(\w+)(?:\[(\d+)\])?(.*)$", re.DOTALL)
_IN_MESSAGE: Final = re.compile(r"^\.(\w+)(?:\[(\d+)\])?(.*)$", re.DOTALL)


@dataclass(slots=True)
class ChatMessageDraft:
    """One message of the chat completion in the making."""

    role: str
    place: str
    """Of the item that began it."""
    content_place: str
    parts: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    """Parts of its content in the chat format, each with its place in the request."""
    calls: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    """Tool calls in the chat format, each with its place in the request."""
    call_id: str = ""
    """Of a tool's message: the call that it answers."""

    def message(self) -> dict[str, Any]:
        """The message in the chat format. One text is a plain string, which every provider understands."""
        message: dict[str, Any] = {"role": self.role, "content": self._content()}
        if self.calls:
            message["tool_calls"] = [call for call, _ in self.calls]
        if self.call_id:
            message["tool_call_id"] = self.call_id
        return message

    def _content(self) -> str | list[dict[str, Any]] | None:
        if not self.parts:
            return None if self.calls else ""
        if len(self.parts) == 1 and self.parts[0][0]["type"] == "text":
            text: str = self.parts[0][0]["text"]
            return text
        return [part for part, _ in self.parts]

    def name(self, rest: str) -> str:
        """The place in the request of what the chat completion calls `messages[...]` and `rest`."""
        found = _IN_MESSAGE.match(rest)
        if found is None:
            return self.place
        name, index, within = found[1], found[2], _unwrapped(found[3])
        if name == "content":
            known = index is not None and int(index) < len(self.parts)
            return (self.parts[int(index)][1] if known else self.content_place) + within
        if name == "tool_calls" and self.calls:
            known = index is not None and int(index) < len(self.calls)
            return self.calls[int(index) if known else 0][1] + within.replace(".id", ".call_id")
        if name == "role" and self.call_id:
            return self.place
        return f"{self.place}.{'call_id' if name == 'tool_call_id' else name}"


@dataclass(slots=True)
class Places:
    """What a chat completion was made of."""

    messages: list[ChatMessageDraft]
    tools: list[str]
    """The place of each of its tools."""

    def name(self, chat_place: str) -> str:
        """The place in the Responses request of what the chat completion calls `chat_place`."""
        found = _PLACE.match(chat_place)
        if found is None:
            return chat_place
        name, index, rest = found[1], found[2], found[3]
        if index is not None and name == "messages" and int(index) < len(self.messages):
            return self.messages[int(index)].name(rest)
        if index is not None and name == "tools" and int(index) < len(self.tools):
            return self.tools[int(index)] + _unwrapped(rest)
        own = _NAMES.get(name)
        return chat_place.replace(".function", "") if own is None else own + _unwrapped(rest)

    def renamed(self, error: InvalidRequest) -> InvalidRequest:
        """An error of the chat completion in the terms of the request."""
        if error.param is None:
            return error
        place = self.name(error.param)
        message = error.message
        if message.startswith(error.param):
            message = place + message[len(error.param) :]
        return InvalidRequest(message, param=place)


def _unwrapped(rest: str) -> str:
    for chat, own in _WRAPPERS:
        rest = rest.replace(chat, own, 1)
    return rest
