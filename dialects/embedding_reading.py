"""Reads a provider's embeddings: usage, and the bytes to pass on. The vectors are not looked at."""

from __future__ import annotations

import msgspec

from dialects.provider_body import (
    UNREADABLE,
    AnswerBody,
    MalformedAnswerError,
    fault_in,
    one_line,
    read_top,
    text_in,
)
from dialects.usage_reading import read_usage

_VECTORS = msgspec.json.Decoder(list[msgspec.Raw])


def read_embeddings(body: bytes) -> AnswerBody:
    """Reads one whole answer of /embeddings; `choices` counts its vectors.

    Raises MalformedAnswerError if it is no JSON object or has no list under `data`.
    """
    top = read_top(body, "list of embeddings")
    if (fault := fault_in(top)) is not None:
        return AnswerBody(b"", fault=fault)
    try:
        vectors = _VECTORS.decode(top["data"])
    except KeyError as error:
        raise MalformedAnswerError("no list of embeddings: it has no data") from error
    except UNREADABLE as error:
        raise MalformedAnswerError(f"no list of embeddings: {error}") from error
    return AnswerBody(
        one_line(top), usage=read_usage(top), model=text_in(top, "model"), choices=tuple(range(len(vectors)))
    )
