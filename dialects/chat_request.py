"""Reads OpenAI's chat completion request: the top level only, everything else stays the client's bytes.

`read` checks what every target needs and collects what not every target can do (`needs`). The same value is made from
the typed contract by dialects.typed_request, so that use cases know one kind of request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from dialects.chat_sampling import read_sampling
from dialects.json_fields import Fields, field
from gen.weir.router.v1 import GenerateRequest
from gen.weir.type.v1 import ChatMessage, Role
from meshkit.errors import InvalidRequest

UNDERSTOOD: Final = frozenset({
    "model", "messages", "prompt", "stream", "stream_options", "max_tokens", "max_completion_tokens",
    "temperature", "top_p", "stop", "seed", "user", "metadata", "n",
})  # fmt: skip
"""What any target honours (`user` and `metadata` are labels, `n` must be 1); any other key is a need of its own."""
_ROLES: Mapping[str, Role] = MappingProxyType(
    {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}
)
_TOOL_ROLES: Final = frozenset({"tool", "function"})
_COUNTED_ONCE: Final = (b'"model"', b'"messages"', b'"stream"', b'"prompt"')
_TOP_LEVEL = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER = msgspec.json.Encoder()


class _Message(msgspec.Struct):
    role: str
    content: str | list[msgspec.Raw] | None = None
    tool_calls: msgspec.Raw | None = None
    function_call: msgspec.Raw | None = None


class _TextPart(msgspec.Struct):
    type: Literal["text"]
    text: str


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One conversation to answer, as far as routing needs to know it."""

    typed: GenerateRequest
    """What any target honours: the conversation as text and the sampling. `model` is empty for the default."""
    stream: bool
    """True if the client wants events, False if it wants one answer."""
    include_usage: bool
    """True if the client asked for usage at the end of its stream."""
    needs: Mapping[str, str]
    """What a target must be able to do beyond that: a capability, and the parameter that asks for it."""
    fields: Fields
    """The client's top-level JSON fields; empty for a typed request."""

    def body(self, model: str, *, stream: bool) -> bytes:
        """The JSON to send to a target that speaks OpenAI's format, with its own name for the model."""
        fields: dict[str, Any] = dict(self.fields)
        fields["model"] = model
        fields["stream"] = stream
        fields.pop("stream_options", None)
        if "prompt" in fields or "messages" not in fields:
            fields.pop("prompt", None)
            fields["messages"] = [
                {"role": _role_name(message.role), "content": message.content}
                for message in self.typed.messages
            ]
        if stream:
            options = self._stream_options()
            options["include_usage"] = True
            fields["stream_options"] = options
        return _ENCODER.encode(fields)

    def _stream_options(self) -> dict[str, Any]:
        raw = self.fields.get("stream_options")
        options = None if raw is None else msgspec.json.decode(raw)
        return options if isinstance(options, dict) else {}


def read(body: bytes) -> ChatRequest:
    """The request in `body`. Raises InvalidRequest naming the field at fault."""
    fields = _top_level(body)
    needs: dict[str, str] = {}
    messages = _messages(fields, needs)
    for name in fields:
        if name not in UNDERSTOOD and not _is_default(name, fields[name]):
            needs.setdefault(_capability(name), name)
    if field(fields, "n", int | None) not in (None, 1):
        needs["n"] = "n"
    options = field(fields, "stream_options", _StreamOptions | None)
    return ChatRequest(
        typed=GenerateRequest(
            model=field(fields, "model", str | None) or "",
            messages=messages,
            sampling=read_sampling(fields),
        ),
        stream=bool(field(fields, "stream", bool | None)),
        include_usage=bool(options and options.include_usage),
        needs=needs,
        fields=fields,
    )


def _top_level(body: bytes) -> Fields:
    try:
        text = body.decode("utf-8")
        fields = _TOP_LEVEL.decode(body)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the body must be a JSON object: {error}") from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error
    if any(body.count(name) > 1 for name in _COUNTED_ONCE):
        _refuse_repeated(text)
    return fields


def _refuse_repeated(text: str) -> None:
    """Refuses a top-level key given twice: one reading would be authorised and another one called."""

    def pairs(items: list[tuple[str, Any]]) -> list[str]:
        return [name for name, _ in items]

    try:
        names = JSONDecoder(object_pairs_hook=pairs).decode(text)
    except (JSONDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"{name}: given more than once", param=str(name))


def _messages(fields: Fields, needs: dict[str, str]) -> list[ChatMessage]:
    given = field(fields, "messages", list[msgspec.Raw] | None)
    if given is None:
        prompt = field(fields, "prompt", str | None)
        if prompt is None:
            raise InvalidRequest("messages: required (or prompt, for one user message)", param="messages")
        return [ChatMessage(role=Role.USER, content=prompt)]
    if "prompt" in fields:
        raise InvalidRequest("prompt: not together with messages", param="prompt")
    if not given:
        raise InvalidRequest("messages: must not be empty", param="messages")
    return [_message(raw, f"messages[{index}]", needs) for index, raw in enumerate(given)]


def _message(raw: msgspec.Raw, where: str, needs: dict[str, str]) -> ChatMessage:
    try:
        message = msgspec.json.decode(raw, type=_Message)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"{where}: {error}", param=where) from error
    if message.role in _TOOL_ROLES:
        needs.setdefault("tools", f"{where}.role")
        return ChatMessage(role=Role.USER, content="")
    if message.role not in _ROLES:
        known = ", ".join([*_ROLES, *sorted(_TOOL_ROLES)])
        raise InvalidRequest(
            f"{where}.role: unknown role {message.role[:40]!r}, known: {known}", param=f"{where}.role"
        )
    if message.tool_calls is not None or message.function_call is not None:
        needs.setdefault("tools", where)
    elif message.content is None:
        raise InvalidRequest(f"{where}.content: required", param=f"{where}.content")
    return ChatMessage(role=_ROLES[message.role], content=_text(message.content, f"{where}.content", needs))


def _text(content: str | list[msgspec.Raw] | None, where: str, needs: dict[str, str]) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for index, raw in enumerate(content):
        try:
            texts.append(msgspec.json.decode(raw, type=_TextPart).text)
        except msgspec.ValidationError:
            needs.setdefault("vision", f"{where}[{index}]")
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidRequest(f"{where}[{index}]: {error}", param=f"{where}[{index}]") from error
    return "".join(texts)


def _capability(name: str) -> str:
    """The capability that a parameter beyond UNDERSTOOD asks for; mostly named like the parameter."""
    if name in ("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"):
        return "tools"
    return "json_schema" if name == "response_format" else name


def _is_default(name: str, raw: msgspec.Raw) -> bool:
    """True where the parameter asks for nothing: null, an empty list, false, zero, or plain text."""
    if name == "response_format":
        return bytes(raw).replace(b" ", b"") == b'{"type":"text"}'
    text = bytes(raw)
    if text in (b"null", b"false", b"[]"):
        return True
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isclose(value, 0.0)


def _role_name(role: Role) -> str:
    return Role(role).name.lower()
