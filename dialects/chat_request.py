"""Reads OpenAI's chat completion request: the top level only, everything else stays the client's bytes.

`read` checks what every target needs and collects what not every target can do (`needs`). The same value is made from
the typed contract by dialects.typed_request, so that use cases know one kind of request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import msgspec

from dialects.chat_messages import Beyond, read_messages
from dialects.chat_sampling import read_sampling
from dialects.json_fields import Field, Fields, top_level
from gen.weir.router.v1 import GenerateRequest
from gen.weir.type.v1 import Role

UNDERSTOOD: Final = frozenset({
    "model", "messages", "prompt", "stream", "stream_options", "max_tokens", "max_completion_tokens",
    "temperature", "top_p", "stop", "seed", "n",
    "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
})  # fmt: skip
"""What any target honours (the last row are labels and hints, `n` must be 1); any other key is a need of its own."""
_CAPABILITIES: Mapping[str, str] = MappingProxyType({
    "tool_choice": "tools",
    "parallel_tool_calls": "tools",
    "functions": "tools",
    "function_call": "tools",
    "response_format": "json_schema",
})  # fmt: skip
"""The capability that a parameter asks for, where the two are not named alike."""
_NOTHING: Final[tuple[Any, ...]] = (None, False, [], {})
"""Values, and zero, that ask for nothing under any name."""
_DEFAULTS: Mapping[str, tuple[Any, ...]] = MappingProxyType({
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    # Without tools, whose own need counts, these choose among none.
    "tool_choice": ("auto", "none"),
    "function_call": ("auto", "none"),
    "parallel_tool_calls": (True,),
})  # fmt: skip
"""What else asks for nothing: the value that an absent parameter has."""
_LONGEST_DEFAULT_BYTES: Final = 64
_ENCODER = msgspec.json.Encoder()
_OPTIONAL_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_MODEL = Field("model", str)
_STREAM = Field("stream", bool)
_STREAM_OPTIONS = Field("stream_options", _StreamOptions)
_CHOICES = Field("n", int)


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
    """The client's top-level JSON fields; only the sampling for a typed request."""
    prompt_bytes: int
    """Bytes that tell how long the prompt is, for estimates: without pictures, sound and files, whose bytes do not."""

    def body(self, model: str, *, stream: bool) -> bytes:
        """The JSON to send to a target that speaks OpenAI's format, with its own name for the model."""
        fields: dict[str, Any] = {**self.fields, "model": model, "stream": stream}
        fields.pop("prompt", None)
        options = fields.pop("stream_options", None)
        if "messages" not in fields:
            fields["messages"] = [
                {"role": _role_name(message.role), "content": message.content}
                for message in self.typed.messages
            ]
        if stream:
            own = None if options is None else _OPTIONAL_OBJECT.decode(options)
            fields["stream_options"] = {**(own or {}), "include_usage": True}
        return _ENCODER.encode(fields)


def read(body: bytes) -> ChatRequest:
    """The request in `body`. Raises InvalidRequest naming the field at fault."""
    fields = top_level(body)
    beyond = Beyond()
    messages = read_messages(fields, beyond)
    needs = beyond.needs
    for name, raw in fields.items():
        if name not in UNDERSTOOD and not _asks_for_nothing(name, raw):
            needs.setdefault(_CAPABILITIES.get(name, name), name)
    if _CHOICES.read(fields) not in (None, 1):
        needs["n"] = "n"
    options = _STREAM_OPTIONS.read(fields)
    return ChatRequest(
        typed=GenerateRequest(
            model=_MODEL.read(fields) or "", messages=messages, sampling=read_sampling(fields)
        ),
        stream=bool(_STREAM.read(fields)),
        include_usage=options is not None and bool(options.include_usage),
        needs=needs,
        fields=fields,
        prompt_bytes=len(body) - beyond.media_bytes,
    )


def _asks_for_nothing(name: str, raw: msgspec.Raw) -> bool:
    """True where the parameter is as good as absent."""
    text = bytes(raw)
    if len(text) > _LONGEST_DEFAULT_BYTES:
        return False
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False  # a number beyond any float; what it asks for is not ours to say
    return value in _NOTHING or value in _DEFAULTS.get(name, ())


def _role_name(role: Role) -> str:
    return Role(role).name.lower()
