"""Reads the messages of OpenAI's chat format: what any target understands, and what only some do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Final

import msgspec

from dialects.chat_tools import TOOLS, read_calls
from dialects.json_fields import Field, Fields
from dialects.json_node import Node
from gen.weir.type.v1 import ChatMessage, Role, ToolCall
from meshkit.errors import InvalidRequest

MAX_MESSAGES: Final = 16_384
MAX_PARTS: Final = 4_096
"""Of one message."""
_ROLES: Mapping[str, Role] = MappingProxyType(
    {
        "system": Role.SYSTEM,
        "developer": Role.SYSTEM,
        "user": Role.USER,
        "assistant": Role.ASSISTANT,
        "tool": Role.TOOL,
    }
)
_LEGACY_ROLE: Final = "function"
_LEGACY: Final = "functions"
"""The capability that the older form of tools needs."""
_PART_NEEDS: Mapping[str, str] = MappingProxyType({"image_url": "vision", "input_audio": "audio"})
_NOTHING: Final = (b"null", b"[]", b"{}")
_ABSENT = msgspec.Raw(b"null")


@dataclass(slots=True)
class Beyond:
    """What a conversation holds beside text."""

    needs: dict[str, str] = field(default_factory=dict)
    """What a target must be able to do: a capability, and the place that asks for it."""
    media_bytes: int = 0
    """Bytes of the JSON that are pictures, sound and files, or where those are found."""


class _Part(msgspec.Struct, gc=False):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: msgspec.Raw = _ABSENT
    input_audio: msgspec.Raw = _ABSENT
    file: msgspec.Raw = _ABSENT


class _Message(msgspec.Struct, gc=False):
    role: str
    content: str | Annotated[list[_Part], msgspec.Meta(max_length=MAX_PARTS)] | None = None
    refusal: str | None = None
    tool_call_id: str | None = None
    tool_calls: msgspec.Raw = _ABSENT
    function_call: msgspec.Raw = _ABSENT
    audio: msgspec.Raw = _ABSENT


_MESSAGES = Field("messages", Annotated[list[_Message], msgspec.Meta(max_length=MAX_MESSAGES)])
_PROMPT = Field("prompt", str)


def read_messages(fields: Fields, beyond: Beyond) -> list[ChatMessage]:
    """The conversation as text, tool calls and their results; `prompt` stands for one user message.

    Of `messages` and `prompt` the one that was given stays in `fields`; what not every target can do is noted in
    `beyond`. Raises InvalidRequest naming the place.
    """
    given = _MESSAGES.read(fields)
    prompt = _PROMPT.read(fields)
    if given is None:
        fields.pop("messages", None)
        if prompt is None:
            raise InvalidRequest("messages: required (or prompt, for one user message)", param="messages")
        return [ChatMessage(role=Role.USER, content=prompt)]
    fields.pop("prompt", None)
    if prompt is not None:
        raise InvalidRequest("prompt: not together with messages", param="prompt")
    if not given:
        raise InvalidRequest("messages: must not be empty", param="messages")
    return [_read(message, index, beyond) for index, message in enumerate(given)]


def _read(message: _Message, index: int, beyond: Beyond) -> ChatMessage:
    role = _ROLES.get(message.role)
    if role is None:
        _check_legacy_role(message.role, index, beyond)
        return ChatMessage(role=Role.USER)
    if role is Role.TOOL:
        return _tool_result(message, index, beyond)
    content = message.content
    if isinstance(content, str) and not _may_hold_more(message):
        return ChatMessage(role=role, content=content)
    calls, more = _beside_content(message, role, index, beyond)
    if content is None:
        content = message.refusal
    if content is None:
        if not more:
            raise _required(f"messages[{index}].content")
        content = ""
    text = content if isinstance(content, str) else _text(content, index, beyond)
    return (
        ChatMessage(role=role, content=text, tool_calls=calls)
        if calls
        else ChatMessage(role=role, content=text)
    )


def _check_legacy_role(role: str, index: int, beyond: Beyond) -> None:
    place = f"messages[{index}].role"
    if role != _LEGACY_ROLE:
        known = ", ".join([*_ROLES, _LEGACY_ROLE])
        raise InvalidRequest(f"{place}: unknown role {role[:40]!r}, known: {known}", param=place)
    beyond.needs.setdefault(_LEGACY, place)


def _tool_result(message: _Message, index: int, beyond: Beyond) -> ChatMessage:
    beyond.needs.setdefault(TOOLS, f"messages[{index}].role")
    content = message.content
    if content is None:
        raise _required(f"messages[{index}].content")
    if message.tool_call_id is None:
        raise _required(f"messages[{index}].tool_call_id")
    text = content if isinstance(content, str) else _text(content, index, beyond)
    return ChatMessage(role=Role.TOOL, content=text, tool_call_id=message.tool_call_id)


def _beside_content(message: _Message, role: Role, index: int, beyond: Beyond) -> tuple[list[ToolCall], bool]:
    """The calls of a message, and whether it holds anything beside its content, which it then may lack."""
    calls: list[ToolCall] = []
    more = False
    if _is_given(message.tool_calls):
        place = f"messages[{index}].tool_calls"
        if role is not Role.ASSISTANT:
            raise InvalidRequest(f"{place}: only an assistant's message calls tools", param=place)
        beyond.needs.setdefault(TOOLS, place)
        node = Node({"tool_calls": message.tool_calls}, f"messages[{index}]")
        calls, more = read_calls(node, beyond.needs), True
    for capability, name, value in (
        (_LEGACY, "function_call", message.function_call),
        ("audio", "audio", message.audio),
    ):
        if _is_given(value):
            beyond.needs.setdefault(capability, f"messages[{index}].{name}")
            more = True
    return calls, more


def _may_hold_more(message: _Message) -> bool:
    return not (
        message.tool_calls is _ABSENT and message.function_call is _ABSENT and message.audio is _ABSENT
    )


def _is_given(value: msgspec.Raw) -> bool:
    return value is not _ABSENT and bytes(value) not in _NOTHING


def _required(place: str) -> InvalidRequest:
    return InvalidRequest(f"{place}: required", param=place)


def _text(parts: list[_Part], index: int, beyond: Beyond) -> str:
    texts = []
    for number, part in enumerate(parts):
        text = part.text if part.type == "text" else part.refusal if part.type == "refusal" else None
        if text is not None:
            texts.append(text)
            continue
        place = f"messages[{index}].content[{number}]"
        if part.type in {"text", "refusal"}:
            raise _required(f"{place}.{part.type}")
        beyond.needs.setdefault(_PART_NEEDS.get(part.type, part.type), place)
        beyond.media_bytes += sum(
            memoryview(media).nbytes for media in (part.image_url, part.input_audio, part.file)
        )
    return "".join(texts)
