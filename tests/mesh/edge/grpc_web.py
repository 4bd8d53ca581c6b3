"""gRPC-Web as a browser speaks it: one HTTP/1.1 body of frames, binary or base64."""

from __future__ import annotations

import base64
import struct
from typing import NamedTuple

import aiohttp

from tests.mesh.edge.rig import Edge

BINARY = "application/grpc-web+proto"
TEXT = "application/grpc-web-text"
TRAILERS = 0x80
_HEAD = struct.Struct(">BI")


class Frame(NamedTuple):
    """A message, or the trailers where `flags` is 0x80."""

    flags: int
    payload: bytes

    @property
    def trailers(self) -> dict[str, str]:
        """The trailers' names and values."""
        assert self.flags == TRAILERS, self
        pairs = (line.split(":", 1) for line in self.payload.decode().split("\r\n") if line)
        return {name.strip(): value.strip() for name, value in pairs}


def framed(message: bytes, kind: str) -> bytes:
    """The body of a request."""
    frame = _HEAD.pack(0, len(message)) + message
    return base64.b64encode(frame) if kind == TEXT else frame


def headers(kind: str, **further: str) -> dict[str, str]:
    """What grpc-web's own client sends; in a further header's name `_` stands for `-`."""
    own = {"content-type": kind, "accept": kind, "x-grpc-web": "1", "x-user-agent": "grpc-web-javascript/0.1"}
    return {**own, **{name.replace("_", "-"): value for name, value in further.items()}}


def frames(body: bytes, kind: str) -> list[Frame]:
    """Every frame of an answer. Base64 comes in pieces with padding of their own."""
    data = body
    if kind == TEXT:
        data = b"".join(base64.b64decode(body[start : start + 4]) for start in range(0, len(body), 4))
    found = []
    while data:
        flags, length = _HEAD.unpack_from(data)
        found.append(Frame(flags, data[_HEAD.size : _HEAD.size + length]))
        data = data[_HEAD.size + length :]
    return found


def call(
    running: Edge, path: str, message: bytes, kind: str, **further: str
) -> aiohttp.client._RequestContextManager:
    """A request under way, to be entered with `async with`."""
    return running.client.post(
        running.url + path, data=framed(message, kind), headers=headers(kind, **further)
    )
