"""Reads requests for embeddings: OpenAI's JSON, and the typed contract's, into the one kind that use cases know."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from msgspec import Raw
from msgspec.json import encode

from dialects.json_fields import Field, Fields, top_level
from dialects.parameters import (
    FALLBACKS,
    LABEL,
    Parameter,
    note_needs,
    read_fallbacks,
    read_model,
)
from dialects.request import Endpoint, Request
from dialects.texts import MAX_TEXTS, Texts, TextsField
from gen.weir.router.v1 import EmbedRequest, GenerateRequest
from meshkit.errors import InvalidRequest

MAX_DIMENSIONS: Final = 65_536
PARAMETERS: Final[Mapping[str, Parameter]] = MappingProxyType({
    "model": Parameter(note="required; a provider is sent its own name for it"),
    "input": Parameter(note=f"required; 1 to {MAX_TEXTS} texts, none empty; token numbers need `tokens`"),
    "encoding_format": Parameter(note="`float` or `base64`"),
    "dimensions": Parameter("dimensions", nothing=(None,)),
    "user": LABEL,
    "fallbacks": FALLBACKS,
})  # fmt: skip
"""Every parameter that is known; any other is a need of its own name."""
_INPUT = TextsField("input")
_ENCODING = Field("encoding_format", Literal["float", "base64"])
_DIMENSIONS = Field("dimensions", int)


def read(body: bytes) -> Request:
    """OpenAI's request in `body`. Raises InvalidRequest naming the field at fault."""
    fields = top_level(body)
    inputs = _INPUT.read(fields)
    _check_inputs(inputs.texts, one=bytes(fields["input"]).lstrip().startswith(b'"'), name="input")
    _check_dimensions(_DIMENSIONS.read(fields))
    needs: dict[str, str] = {} if inputs.texts else {"tokens": "input"}
    note_needs(fields, PARAMETERS, needs)
    return _request(
        GenerateRequest(model=read_model(fields)),
        fields,
        inputs,
        needs,
        read_fallbacks(fields),
        _ENCODING.read(fields) or "float",
    )


def read_embed(request: EmbedRequest) -> Request:
    """A typed request, without its wishes for the route. Raises InvalidRequest naming the field at fault.

    A provider is asked for base64, which is exact and a third as long; some know only floats and send those.
    """
    texts = tuple(request.inputs)
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise InvalidRequest(f"inputs: must be 1 to {MAX_TEXTS}", param="inputs")
    _check_inputs(texts, one=False, name="inputs")
    _check_dimensions(request.dimensions)
    named: dict[str, Any] = {"input": texts, "encoding_format": "base64"}
    if request.dimensions is not None:
        named["dimensions"] = request.dimensions
    return _request(
        GenerateRequest(model=request.model),
        {name: Raw(encode(value)) for name, value in named.items()},
        Texts(texts, len(texts), sum(len(text.encode()) for text in texts)),
        {} if request.dimensions is None else {"dimensions": "dimensions"},
        (),
        "base64",
    )


def _request(
    typed: GenerateRequest,
    fields: Fields,
    inputs: Texts,
    needs: Mapping[str, str],
    fallbacks: tuple[str, ...],
    encoding: Literal["float", "base64"],
) -> Request:
    if not typed.model:
        raise InvalidRequest("model: required", param="model")
    return Request(
        endpoint=Endpoint.EMBEDDINGS,
        typed=typed,
        stream=False,
        include_usage=False,
        needs=needs,
        fields=fields,
        prompt_bytes=inputs.size_bytes,
        choices=inputs.number,
        fallbacks=fallbacks,
        inputs=inputs.texts,
        encoding=encoding,
    )


def _check_inputs(texts: tuple[str, ...], *, one: bool, name: str) -> None:
    if "" in texts:
        place = name if one else f"{name}[{texts.index('')}]"
        raise InvalidRequest(f"{place}: must not be empty", param=place)


def _check_dimensions(dimensions: int | None) -> None:
    if dimensions is not None and not 1 <= dimensions <= MAX_DIMENSIONS:
        raise InvalidRequest(f"dimensions: must be 1 to {MAX_DIMENSIONS}", param="dimensions")
