"""Tensors of KServe v2 requests and responses, as raw bytes: no numpy on the way."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from meshkit.errors import UpstreamError

_LENGTH_BYTES = 4


def add_scalar(request: Any, name: str, datatype: str, code: str, value: float) -> None:
    """Adds a tensor [1, 1]; `code` is struct's for `datatype`."""
    request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
    request.raw_input_contents.append(struct.pack(code, value))


def add_strings(request: Any, name: str, texts: Sequence[str], shape: Sequence[int]) -> None:
    """Adds a STRING tensor: each element behind its length as 4 bytes little-endian."""
    encoded = [text.encode() for text in texts]
    request.inputs.add(name=name, datatype="BYTES", shape=shape)
    request.raw_input_contents.append(b"".join(struct.pack("<I", len(text)) + text for text in encoded))


def outputs(response: Any) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each output."""
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=False):
        yield output.name, raw


def strings(raw: bytes) -> list[str]:
    """The elements of a STRING tensor; what is not UTF-8 is replaced. Raises UpstreamError if it is cut short."""
    texts, at = [], 0
    while at < len(raw):
        end = at + _LENGTH_BYTES + int.from_bytes(raw[at : at + _LENGTH_BYTES], "little")
        if end > len(raw):
            raise UpstreamError("a STRING tensor is cut short")
        texts.append(raw[at + _LENGTH_BYTES : end].decode("utf-8", errors="replace"))
        at = end
    return texts


def int32s(raw: bytes) -> tuple[int, ...]:
    """The elements of an INT32 tensor. Raises UpstreamError if it is cut short."""
    try:
        return tuple(value for (value,) in struct.iter_unpack("<i", raw))
    except struct.error:
        raise UpstreamError("an INT32 tensor is cut short") from None
