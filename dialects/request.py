"""The one kind of request that the router's use cases know, whichever face of the router it came through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import msgspec

from dialects.json_fields import Fields
from gen.weir.router.v1 import GenerateRequest

PrefillStyle = Literal["plain", "prefix", "continue_final_message"]
"""How a provider is told to go on with the assistant's last message: `plain` by its being last; `prefix` by a mark on
it; `continue_final_message` by vLLM's two fields beside the messages."""
_OWN_FIELDS = ("fallbacks",)
"""Weir's own top-level fields, which no provider is sent."""
_ENCODER = msgspec.json.Encoder()
_OPTIONAL_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_OPTIONAL_INT = msgspec.json.Decoder(int | None)
_CAPS = ("max_completion_tokens", "max_tokens")
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


class Endpoint(Enum):
    """Which of OpenAI's endpoints a request is for."""

    CHAT_COMPLETIONS = "chat/completions"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing to answer, as far as routing needs to know it."""

    endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS
    typed: GenerateRequest
    """What our own models honour: conversation, sampling, tools, format. `model` is empty for the default."""
    stream: bool
    """True if the client wants events, False if it wants one answer."""
    include_usage: bool
    """True if the client asked for usage at the end of its stream."""
    needs: Mapping[str, str]
    """What a target must be able to do beyond text and sampling: a capability, and the parameter that asks for it."""
    fields: Fields
    """The request's top-level JSON fields in OpenAI's format; a provider is sent them."""
    prompt_bytes: int
    """Bytes that tell how long the prompt is, for estimates: without pictures, sound and files, whose bytes do not."""
    cap_param: str = "max_tokens"
    """What the caller calls the cap of an answer."""
    choices: int = 1
    """Answers wanted at once (`n`); EMBEDDINGS: the vectors."""
    fallbacks: tuple[str, ...] = ()
    """Models whose targets are asked when those of the request's own model fail."""
    prompt: str | None = None
    """COMPLETIONS: the text to continue."""
    inputs: tuple[str, ...] = ()
    """EMBEDDINGS: the texts; empty where the client sent token numbers."""
    encoding: Literal["float", "base64"] = "float"
    """EMBEDDINGS: how the client wants its vectors."""
    chat: Request | None = None
    """RESPONSES: the same conversation as a chat completion, for targets that know no responses."""

    @property
    def max_output_tokens(self) -> int | None:
        """The cap of one answer, as asked for. Tokens."""
        sampling = self.typed.sampling
        return None if sampling is None else sampling.max_output_tokens

    @property
    def can_be_continued(self) -> bool:
        """Whether another target could go on with a broken answer: it is one text without a form of its own."""
        return (
            self.endpoint is Endpoint.CHAT_COMPLETIONS
            and self.choices == 1
            and not {"json_schema", "logprobs", "audio"} & self.needs.keys()
        )

    def body(
        self,
        model: str,
        *,
        stream: bool,
        prefill: str = "",
        prefill_tokens: int = 0,
        style: PrefillStyle = "plain",
    ) -> bytes:
        """The JSON to send to a target that speaks OpenAI's format, with its own name for the model.

        Args:
            model: the target's name for it.
            stream: whether events are wanted of the target; usage is then asked for, where the endpoint has it.
            prefill: the beginning of the answer, to be continued. CHAT_COMPLETIONS only.
            prefill_tokens: about so many it is; the rest may be that much shorter than the answer's cap.
            style: how the target is told so.
        """
        fields: dict[str, Any] = {**self.fields, "model": model}
        for name in _OWN_FIELDS:
            fields.pop(name, None)
        if self.endpoint is Endpoint.EMBEDDINGS:
            return _ENCODER.encode(fields)
        fields["stream"] = stream
        options = fields.pop("stream_options", None)
        if stream and self.endpoint is not Endpoint.RESPONSES:
            own = None if options is None else _OPTIONAL_OBJECT.decode(options)
            fields["stream_options"] = {**(own or {}), "include_usage": True}
        elif stream and options is not None:
            fields["stream_options"] = options
        if prefill:
            _add_prefill(fields, prefill, style)
            _shorten(fields, prefill_tokens)
        return _ENCODER.encode(fields)


def _add_prefill(fields: dict[str, Any], prefill: str, style: PrefillStyle) -> None:
    message: dict[str, Any] = {"role": "assistant", "content": prefill}
    if style == "prefix":
        message["prefix"] = True
    elif style == "continue_final_message":
        fields["continue_final_message"], fields["add_generation_prompt"] = True, False
    fields["messages"] = [*_LIST.decode(fields["messages"]), message]


def _shorten(fields: dict[str, Any], tokens: int) -> None:
    """Takes what was delivered off the caps: they are of the whole answer."""
    for name in _CAPS:
        if name in fields and (cap := _OPTIONAL_INT.decode(fields[name])) is not None:
            fields[name] = max(1, cap - tokens)
