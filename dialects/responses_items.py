"""Reads the `input` of OpenAI's Responses API: its items, and the chat messages that say the same."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec

from dialects.json_fields import Field, Fields
from dialects.json_node import Node
from dialects.responses_places import ChatMessageDraft
from meshkit.errors import InvalidRequest

MAX_ITEMS: Final = 16_384
MAX_PARTS: Final = 4_096
"""Of one item."""
_ROLES: Mapping[str, str] = MappingProxyType(
    {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
)
"""Chat providers know `system` everywhere, `developer` hardly anywhere."""
_NOTES: Final = frozenset({"type", "id", "status", "annotations", "logprobs", "prompt_cache_breakpoint"})
"""What an answer says about its own items and no model reads again, and a hint for caches."""
_MESSAGE: Final = _NOTES | {"role", "content"}
_CALL: Final = _NOTES | {"call_id", "name", "arguments"}
_OUTPUT: Final = _NOTES | {"call_id", "output"}
_TEXT_PART: Final = _NOTES | {"text"}
_REFUSAL_PART: Final = _NOTES | {"refusal"}
_IMAGE_PART: Final = _NOTES | {"image_url", "detail"}
_FILE: Final = frozenset({"file_id", "file_data", "filename"})
_FILE_PART: Final = _NOTES | _FILE
_TEXT_PARTS: Final = frozenset({"input_text", "output_text"})
_MEDIA_ITEMS: Final = frozenset({"computer_call_output", "image_generation_call"})
"""Items that are mostly a picture."""
_ENCODER = msgspec.json.Encoder()
_Object = dict[str, msgspec.Raw]
_OBJECT = msgspec.json.Decoder(_Object)
_Objects = Annotated[list[_Object], msgspec.Meta(max_length=MAX_PARTS)]
_CONTENT = msgspec.json.Decoder(str | _Objects)
_INPUT = Field("input", str | Annotated[list[_Object], msgspec.Meta(max_length=MAX_ITEMS)])


class Conversation:
    """The `input` and `instructions` of one request as a chat.

    `beyond` is the first place of what only a real Responses API can do, if there is any: the chat then lacks it.
    """

    def __init__(self) -> None:
        self.messages: list[ChatMessageDraft] = []
        self.beyond: str | None = None
        self.given = False
        """True if `input` holds anything."""
        self.media_bytes = 0
        """Bytes of the JSON that are pictures and files and that the chat lacks."""
        self._calls: set[str] = set()

    def note(self, place: str) -> None:
        """Notes what only a real Responses API can do."""
        if self.beyond is None:
            self.beyond = place

    def read(self, fields: Fields) -> None:
        """Reads both fields. Raises InvalidRequest naming the place."""
        body = Node(fields, "")
        instructions = body.text("instructions")
        if instructions is not None:
            self._say("system", "instructions", instructions)
        given = _INPUT.read(fields)
        self.given = given is not None and given != []
        if isinstance(given, str):
            self._say("user", "input", given)
        elif given is not None:
            for index, item in enumerate(given):
                self._item(Node(item, f"input[{index}]"))

    def match_answers(self) -> None:
        """Every tool's output belongs to a call. Raises InvalidRequest.

        Where the call may be kept elsewhere, its output is left out of the chat instead.
        """
        strange = [draft for draft in self.messages if draft.call_id and draft.call_id not in self._calls]
        if strange and self.beyond is None:
            place = f"{strange[0].place}.call_id"
            raise InvalidRequest(f"{place}: no function_call has this id", param=place)
        if strange:
            self.messages = [draft for draft in self.messages if draft not in strange]

    def _say(self, role: str, place: str, text: str) -> None:
        self.messages.append(
            ChatMessageDraft(role, place, place, parts=[({"type": "text", "text": text}, place)])
        )

    def _item(self, item: Node) -> None:
        kind = item.text("type")
        if kind is None:
            kind = "item_reference" if "role" not in item.fields and "id" in item.fields else "message"
        if kind == "message":
            self._message(item)
        elif kind == "function_call":
            self._call(item)
        elif kind == "function_call_output":
            self._output(item)
        else:
            self.note(item.place)
            if kind in _MEDIA_ITEMS:
                self.media_bytes += sum(memoryview(raw).nbytes for raw in item.fields.values())

    def _message(self, item: Node) -> None:
        named = item.required_text("role")
        role = _ROLES.get(named)
        if role is None:
            place = item.at("role")
            raise InvalidRequest(
                f"{place}: unknown role {named[:40]!r}, known: {', '.join(_ROLES)}", param=place
            )
        self._note_others(item, _MESSAGE)
        parts = self._content(item, "content")
        last = self.messages[-1] if self.messages else None
        if role == "assistant" and last is not None and last.calls:
            last.parts.extend(parts)  # tools' messages must follow the message with their calls at once
            return
        self.messages.append(ChatMessageDraft(role, item.place, item.at("content"), parts=parts))

    def _call(self, item: Node) -> None:
        call_id = item.required_text("call_id")
        function = {"name": item.required_text("name"), "arguments": item.required_text("arguments")}
        self._note_others(item, _CALL)
        self._calls.add(call_id)
        last = self.messages[-1] if self.messages else None
        if last is None or last.role != "assistant":
            last = ChatMessageDraft("assistant", item.place, item.place)
            self.messages.append(last)
        last.calls.append(({"id": call_id, "type": "function", "function": function}, item.place))

    def _output(self, item: Node) -> None:
        call_id = item.required_text("call_id")
        self._note_others(item, _OUTPUT)
        draft = ChatMessageDraft("tool", item.place, item.at("output"), call_id=call_id)
        for part, place in self._content(item, "output"):
            if part["type"] == "text":
                draft.parts.append((part, place))
            else:  # a tool's message holds nothing else in the chat format
                self.note(place)
                self.media_bytes += len(_ENCODER.encode(part))
        self.messages.append(draft)

    def _content(self, item: Node, name: str) -> list[tuple[dict[str, Any], str]]:
        """The content's parts in the chat format. Raises InvalidRequest."""
        content = item.required(name, _CONTENT)
        if isinstance(content, str):
            return [({"type": "text", "text": content}, item.at(name))]
        parts = []
        for index, fields in enumerate(content):
            part = Node(fields, f"{item.at(name)}[{index}]")
            if (translated := self._part(part)) is not None:
                parts.append((translated, part.place))
        return parts

    def _part(self, part: Node) -> dict[str, Any] | None:
        kind = part.required_text("type")
        if kind in _TEXT_PARTS:
            self._note_others(part, _TEXT_PART)
            made: dict[str, Any] | None = {"type": "text", "text": part.required_text("text")}
        elif kind == "refusal":
            self._note_others(part, _REFUSAL_PART)
            made = {"type": "refusal", "refusal": part.required_text("refusal")}
        elif kind == "input_image":
            made = self._image(part)
        elif kind == "input_file":
            made = self._file(part)
        elif kind == "input_audio":
            made = {"type": "input_audio", "input_audio": part.required("input_audio", _OBJECT)}
        else:
            self.note(part.place)
            made = None
        hint = part.raw("prompt_cache_breakpoint")
        if made is not None and hint is not None:
            made["prompt_cache_breakpoint"] = hint
        return made

    def _image(self, part: Node) -> dict[str, Any] | None:
        self._note_others(part, _IMAGE_PART)
        url, detail = part.text_raw("image_url"), part.text_raw("detail")
        if url is None:
            _check_stored(part, "image_url")
            return None
        return {
            "type": "image_url",
            "image_url": {"url": url} | ({} if detail is None else {"detail": detail}),
        }

    def _file(self, part: Node) -> dict[str, Any] | None:
        self._note_others(part, _FILE_PART)
        file = {name: text for name in _FILE if (text := part.text_raw(name)) is not None}
        if "file_id" not in file and "file_data" not in file:
            _check_stored(part, "file_data")
            return None
        return {"type": "file", "file": file}

    def _note_others(self, node: Node, known: frozenset[str]) -> None:
        for place in node.others(known):
            self.note(place)


def _check_stored(part: Node, name: str) -> None:
    """A picture or file that is not here must be kept elsewhere, which chats cannot say. Raises InvalidRequest."""
    if all(part.text_raw(other) is None for other in ("file_id", "file_url")):
        raise InvalidRequest(f"{part.at(name)}: required", param=part.at(name))
