"""Checks the messages of the typed contract and renders them in OpenAI's chat format.

A message is checked, noted and rendered in one pass. Its text, tool calls and results are what our own models read; of
pictures, sound and files they are given nothing, and a provider all.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from betterproto2 import Message

from dialects.chat_messages import MAX_MESSAGES, MAX_PARTS
from dialects.chat_tools import MAX_CALLS, TOOLS
from gen.weir.type.v1 import Audio, ChatMessage, ContentPart, File, Image, Role, ToolCall
from meshkit.errors import InvalidRequest

_ROLES: Mapping[int, str] = MappingProxyType(
    {Role.SYSTEM: "system", Role.USER: "user", Role.ASSISTANT: "assistant", Role.TOOL: "tool"}
)
_MAY_BE_EMPTY: Final = (Role.ASSISTANT, Role.TOOL)
"""An answer may be calls alone, and a tool may have nothing to tell."""
_DETAILS: Final = ("auto", "low", "high")
_SOUNDS: Final = ("wav", "mp3")
_HTTPS: Final = re.compile(r"https://[^/\s]", re.IGNORECASE)
_DATA_URL: Final = re.compile(
    r"data:[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}(?:;[a-z0-9.=_+-]{1,64}){0,4};base64,.", re.IGNORECASE
)
Rendered = dict[str, Any]


def refused(place: str, rule: str) -> InvalidRequest:
    """The error for a place that breaks a rule."""
    return InvalidRequest(f"{place}: {rule}", param=place)


def one_of(message: Message, names: Sequence[str], place: str) -> str:
    """The member of a oneof that is set. Raises InvalidRequest where that is not exactly one."""
    given = [name for name in names if getattr(message, name) is not None]
    if len(given) != 1:
        raise refused(place, f"must have exactly one of {', '.join(names)}")
    return given[0]


class TypedMessages:
    """A conversation as it is read, message by message.

    Args:
        needs: capability -> place; what only some targets can do is added.
    """

    def __init__(self, needs: dict[str, str]) -> None:
        self._needs = needs
        self.rendered: list[Rendered] = []
        """In OpenAI's chat format."""
        self.read: list[ChatMessage] = []
        """As our own models read them: the text of parts is content."""
        self.text_bytes = 0
        """Of texts, calls and results. UTF-8."""

    def add_all(self, messages: Sequence[ChatMessage]) -> None:
        """Reads all. Raises InvalidRequest naming the place."""
        if not messages:
            raise refused("messages", "must not be empty")
        if len(messages) > MAX_MESSAGES:
            raise refused("messages", f"at most {MAX_MESSAGES}")
        for index, message in enumerate(messages):
            self._add(message, f"messages[{index}]")

    def _add(self, message: ChatMessage, place: str) -> None:
        role = _ROLES.get(message.role)
        if role is None:
            raise refused(f"{place}.role", f"unknown role {int(message.role)}")
        self._check_tools(message, place)
        text, content = self._content(message, place)
        rendered: Rendered = {"role": role, "content": content}
        if message.tool_calls:
            rendered["content"] = content or None
            rendered["tool_calls"] = self._calls(message.tool_calls, f"{place}.tool_calls")
        if message.role == Role.TOOL:
            rendered["tool_call_id"] = message.tool_call_id
            self._needs.setdefault(TOOLS, f"{place}.role")
        self.text_bytes += len(text.encode())
        self.rendered.append(rendered)
        self.read.append(
            message
            if not message.parts
            else ChatMessage(
                role=message.role,
                content=text,
                tool_calls=message.tool_calls,
                tool_call_id=message.tool_call_id,
            )
        )

    def _check_tools(self, message: ChatMessage, place: str) -> None:
        if message.tool_calls and message.role != Role.ASSISTANT:
            raise refused(f"{place}.tool_calls", "only an assistant's message calls tools")
        if message.role == Role.TOOL and not message.tool_call_id:
            raise refused(f"{place}.tool_call_id", "required")
        if message.role != Role.TOOL and message.tool_call_id:
            raise refused(f"{place}.tool_call_id", "only in a tool's message")

    def _content(self, message: ChatMessage, place: str) -> tuple[str, str | list[Rendered]]:
        """The text alone, and the content in OpenAI's format."""
        if not message.parts:
            if not message.content and message.role not in _MAY_BE_EMPTY:
                raise refused(f"{place}.content", "must not be empty")
            return message.content, message.content
        if message.content:
            raise refused(f"{place}.parts", "not together with content")
        if len(message.parts) > MAX_PARTS:
            raise refused(f"{place}.parts", f"at most {MAX_PARTS}")
        rendered = [self._part(part, f"{place}.parts[{index}]") for index, part in enumerate(message.parts)]
        return "".join(part.text or "" for part in message.parts), rendered

    def _part(self, part: ContentPart, place: str) -> Rendered:
        kind = one_of(part, ("text", "image", "audio", "file"), place)
        if part.text is not None:
            if not part.text:
                raise refused(f"{place}.text", "must not be empty")
            return {"type": "text", "text": part.text}
        need, render = _MEDIA[kind]
        self._needs.setdefault(need, place)
        return render(getattr(part, kind), f"{place}.{kind}")

    def _calls(self, calls: Sequence[ToolCall], place: str) -> list[Rendered]:
        self._needs.setdefault(TOOLS, place)
        if len(calls) > MAX_CALLS:
            raise refused(place, f"at most {MAX_CALLS}")
        for index, call in enumerate(calls):
            for name in ("id", "name"):
                if not getattr(call, name):
                    raise refused(f"{place}[{index}].{name}", "required")
            self.text_bytes += len(call.name.encode()) + len(call.arguments.encode())
        return [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]


def _image(image: Image, place: str) -> Rendered:
    if not (_HTTPS.match(image.url) or _DATA_URL.match(image.url)):
        raise refused(f"{place}.url", "must be an https or data URL")
    if image.detail and image.detail not in _DETAILS:
        raise refused(f"{place}.detail", f"must be one of {', '.join(_DETAILS)}")
    detail = {"detail": image.detail} if image.detail else {}
    return {"type": "image_url", "image_url": {"url": image.url, **detail}}


def _audio(audio: Audio, place: str) -> Rendered:
    if not audio.data:
        raise refused(f"{place}.data", "must not be empty")
    if audio.format not in _SOUNDS:
        raise refused(f"{place}.format", f"must be one of {', '.join(_SOUNDS)}")
    return {
        "type": "input_audio",
        "input_audio": {"data": b64encode(audio.data).decode("ascii"), "format": audio.format},
    }


def _file(file: File, place: str) -> Rendered:
    if file.file_id:
        if file.filename or file.file_data:
            raise refused(f"{place}.file_id", "not together with filename or file_data")
        return {"type": "file", "file": {"file_id": file.file_id}}
    if not _DATA_URL.match(file.file_data):
        raise refused(f"{place}.file_data", "must be a data URL, where there is no file_id")
    name = {"filename": file.filename} if file.filename else {}
    return {"type": "file", "file": {**name, "file_data": file.file_data}}


_MEDIA: Mapping[str, tuple[str, Callable[[Any, str], Rendered]]] = MappingProxyType(
    {"image": ("vision", _image), "audio": ("audio", _audio), "file": ("file", _file)}
)
"""A part's kind -> the capability that it needs, and how it is rendered."""
