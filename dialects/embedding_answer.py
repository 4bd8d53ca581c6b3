"""OpenAI's list of embeddings: made of vectors of our own, passed on, and read for callers of the typed contract."""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from dialects.embedding_request import MAX_DIMENSIONS
from dialects.rendering import AnswerHead, Bill, whole_passed_on
from gen.weir.cloud.v1 import GenerateResponse as Piece
from gen.weir.type.v1 import Usage
from meshkit.errors import InternalFault, UpstreamError, WeirError

FLOAT_BYTES: Final = 4
_ENCODER = msgspec.json.Encoder()


class _Embedding(msgspec.Struct, gc=False):
    embedding: str | Annotated[list[float], msgspec.Meta(min_length=1, max_length=MAX_DIMENSIONS)]
    index: int


class _List(msgspec.Struct, gc=False):
    data: list[_Embedding]


class _Unread(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]


_LIST = msgspec.json.Decoder(_List)
_UNREAD = msgspec.json.Decoder(_Unread)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class EmbeddingRendering:
    """One list of embeddings (dialects.rendering.Rendering). It comes whole: nothing of it can be streamed."""

    def events(self, head: AnswerHead, piece: Piece, bill: Bill | None) -> bytes:  # noqa: ARG002 - the protocol's
        """Never asked for."""
        raise InternalFault("embeddings are not streamed")

    def error(self, error: WeirError) -> bytes:
        """Never asked for."""
        raise error

    def whole(self, head: AnswerHead, pieces: Sequence[Piece], bill: Bill) -> bytes:
        """The target's own list, also a local one's, with `provider` in front and `weir` in its usage."""
        return whole_passed_on(head, pieces, bill)


def render(vectors: Sequence[bytes], model: str, usage: Usage, encoding: Literal["float", "base64"]) -> bytes:
    """The JSON of a whole answer.

    Args:
        vectors: one an input, each the little-endian float32 of its coordinates.
        model: the target's own name for it.
        usage: embeddings have input tokens alone.
        encoding: as the client wants it.

    Raises:
        UpstreamError: a vector is none.
    """
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector, encoding)}
        for index, vector in enumerate(vectors)
    ]
    counts = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    return _ENCODER.encode({"object": "list", "data": data, "model": model, "usage": counts})


def _written(vector: bytes, encoding: Literal["float", "base64"]) -> str | list[float]:
    values = _values(vector)
    return base64.b64encode(vector).decode("ascii") if encoding == "base64" else values.tolist()


def check_count(body: bytes, count: int) -> None:
    """Raises UpstreamError unless a provider's list has so many embeddings: what is short is no success."""
    try:
        came = len(_UNREAD.decode(body).data)
    except _UNREADABLE as error:
        raise UpstreamError(f"no list of embeddings: {error}") from error
    if came != count:
        raise UpstreamError(f"{came} embeddings came for {count} inputs")


def read_vectors(body: bytes, count: int) -> list[list[float]]:
    """The vectors of a provider's answer, in the order of the inputs; floats or base64.

    Args:
        body: OpenAI's list of embeddings.
        count: how many inputs were sent.

    Raises:
        UpstreamError: it is no such list, or not one vector of the same length for each input.
    """
    try:
        data = _LIST.decode(body).data
    except _UNREADABLE as error:
        raise UpstreamError(f"no list of embeddings: {error}") from error
    if sorted([one.index for one in data]) != list(range(count)):
        raise UpstreamError(f"not one embedding for each of {count} inputs: {len(data)} came")
    vectors = [_read(one.embedding) for one in sorted(data, key=_index)]
    if len({len(vector) for vector in vectors}) != 1:
        raise UpstreamError("embeddings of different lengths")
    return vectors


def _index(one: _Embedding) -> int:
    return one.index


def _read(embedding: str | list[float]) -> list[float]:
    if isinstance(embedding, str):
        try:
            return _values(base64.b64decode(embedding, validate=True)).tolist()
        except ValueError as error:
            raise UpstreamError(f"an embedding is no base64: {error}") from error
    return _finite(array("f", embedding)).tolist()


def _values(vector: bytes) -> array[float]:
    """The coordinates of little-endian float32. Raises UpstreamError."""
    if not vector or len(vector) % FLOAT_BYTES or len(vector) > MAX_DIMENSIONS * FLOAT_BYTES:
        raise UpstreamError(f"an embedding of {len(vector)} bytes is no vector")
    values = array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return _finite(values)


def _finite(values: array[float]) -> array[float]:
    # Doubles hold the sum of any float32s, so it is finite exactly if all of them are.
    if not math.isfinite(sum(values)):
        raise UpstreamError("an embedding has coordinates that are no numbers")
    return values
