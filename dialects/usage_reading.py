"""Reads the token counts of providers, under the names of chat completions and of the Responses API."""

from __future__ import annotations

from typing import Annotated

import msgspec

from dialects.provider_body import UNREADABLE, Top
from gen.weir.type.v1 import Usage

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


_USAGE = msgspec.json.Decoder(_Usage | None)
_NULL = b"null"


def read_usage(top: Top) -> Usage | None:
    """The counts under `usage`. None where there are none or they are absurd: the router estimates then."""
    raw = top.get("usage")
    if raw is None or bytes(raw) == _NULL:
        return None
    try:
        read = _USAGE.decode(raw)
    except UNREADABLE:
        return None
    return None if read is None else _usage(read)


def _usage(read: _Usage) -> Usage | None:
    taken = read.prompt_tokens if read.input_tokens is None else read.input_tokens
    given = read.completion_tokens if read.output_tokens is None else read.output_tokens
    if taken is None and given is None:
        return None
    of_input = read.input_tokens_details or read.prompt_tokens_details
    of_output = read.output_tokens_details or read.completion_tokens_details
    return Usage(
        input_tokens=taken or 0,
        output_tokens=given or 0,
        cached_input_tokens=None if of_input is None else of_input.cached_tokens,
        reasoning_output_tokens=None if of_output is None else of_output.reasoning_tokens,
    )
