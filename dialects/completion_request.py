"""Reads OpenAI's older completion request, a text to continue: the top level only, all else stays bytes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dialects.chat_sampling import read_sampling
from dialects.json_fields import Field, Fields, top_level
from dialects.parameters import (
    FALLBACKS,
    LABEL,
    MAX_CHOICES,
    MODEL,
    Parameter,
    note_needs,
    read_choices,
    read_fallbacks,
    read_model,
    read_stream,
)
from dialects.request import Endpoint, Request
from dialects.texts import Texts, TextsField
from gen.weir.router.v1 import GenerateRequest
from meshkit.errors import InvalidRequest

PARAMETERS: Final[Mapping[str, Parameter]] = MappingProxyType({
    "model": MODEL,
    "prompt": Parameter(
        note="required; several prompts need `prompts`, token numbers `tokens`, an empty text `empty_prompt`"
    ),
    "max_tokens": Parameter(note="absent: the target's own default; 0 only together with `echo`"),
    "temperature": Parameter(),
    "top_p": Parameter(),
    "stop": Parameter(note="at most 4, none empty"),
    "seed": Parameter(),
    "presence_penalty": Parameter(),
    "frequency_penalty": Parameter(),
    "stream": Parameter(),
    "stream_options": Parameter(note="`include_usage`; a provider is always asked for it"),
    "user": LABEL,
    "n": Parameter("n", (1,), note=f"1 to {MAX_CHOICES}"),
    "best_of": Parameter("best_of", (1,), note=f"1 to {MAX_CHOICES}, at least `n`"),
    "echo": Parameter("echo"),
    "logit_bias": Parameter("logit_bias"),
    "logprobs": Parameter("logprobs", nothing=(None,), note="0 too asks for the drawn token's own"),
    "suffix": Parameter("suffix", ("",)),
    "fallbacks": FALLBACKS,
})  # fmt: skip
"""Every parameter that is known; any other is a need of its own name."""
_PROMPT = TextsField("prompt")
_BEST_OF = Field("best_of", int)


def read(body: bytes) -> Request:
    """The request in `body`. Raises InvalidRequest naming the field at fault."""
    fields = top_level(body)
    prompts = _PROMPT.read(fields)
    needs = _prompt_needs(prompts)
    note_needs(fields, PARAMETERS, needs)
    stream, include_usage = read_stream(fields)
    return Request(
        endpoint=Endpoint.COMPLETIONS,
        typed=GenerateRequest(
            model=read_model(fields), sampling=read_sampling(_without_zero_cap(fields, needs))
        ),
        stream=stream,
        include_usage=include_usage,
        needs=needs,
        fields=fields,
        prompt_bytes=prompts.size_bytes + len(bytes(fields.get("suffix", b""))),
        choices=_choices(fields) * prompts.number,
        fallbacks=read_fallbacks(fields),
        prompt=prompts.texts[0] if prompts.texts else None,
    )


def _prompt_needs(prompts: Texts) -> dict[str, str]:
    needs = {}
    if prompts.number > 1:
        needs["prompts"] = "prompt"
    if not prompts.texts:
        needs["tokens"] = "prompt"
    elif not all(prompts.texts):
        needs["empty_prompt"] = "prompt"
    return needs


def _choices(fields: Fields) -> int:
    """How many answers are made for one prompt, those that are not returned among them. Raises InvalidRequest."""
    choices = read_choices(fields)
    best_of: int | None = _BEST_OF.read(fields)
    if best_of is None:
        return choices
    if not choices <= best_of <= MAX_CHOICES:
        raise InvalidRequest(f"best_of: must be n to {MAX_CHOICES}", param="best_of")
    return best_of


def _without_zero_cap(fields: Fields, needs: Mapping[str, str]) -> Fields:
    """Leaves out a cap of zero tokens, which scores an echoed prompt: a form of `echo`, not a cap of ours."""
    if "echo" in needs and bytes(fields.get("max_tokens", b"")) == b"0":
        return {name: raw for name, raw in fields.items() if name != "max_tokens"}
    return fields
