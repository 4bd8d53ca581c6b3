"""HTTP/2 frame by frame, for what a library would not do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from tests.mesh.edge.rig import CHAT, Edge

DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0, 1, 3, 4, 8
END_STREAM, END_HEADERS = 1, 4
CANCEL = (8).to_bytes(4, "big")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD_BYTES = 9


class Frame(NamedTuple):
    """A frame that arrived."""

    kind: int
    stream: int
    payload: bytes


@dataclass
class Http2:
    """A connection that does nothing by itself: it acknowledges nothing and opens no window."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, kind: int, stream: int, payload: bytes, flags: int = 0) -> None:
        """One frame."""
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
        self.writer.write(head + payload)

    def post(
        self, stream: int, body: bytes, headers: dict[str, str] | None = None, *, whole: bool = True
    ) -> None:
        """A chat on a stream of its own; without `whole` the body goes on."""
        fields = {":method": "POST", ":path": CHAT, ":scheme": "http", ":authority": "x", **(headers or {})}
        self.send(HEADERS, stream, b"".join(map(literal, fields, fields.values())), END_HEADERS)
        self.send(DATA, stream, body, END_STREAM if whole else 0)

    async def frame(self) -> Frame:
        """The next frame."""
        head = await self.reader.readexactly(_HEAD_BYTES)
        payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
        return Frame(head[3], int.from_bytes(head[5:], "big"), payload)

    async def until(self, kind: int) -> dict[int, bytes]:
        """Reads up to a frame of that kind; the last payload of each kind."""
        received: dict[int, bytes] = {}
        while kind not in received:
            found = await self.frame()
            received[found.kind] = found.payload
        return received


@asynccontextmanager
async def http2(running: Edge) -> AsyncIterator[Http2]:
    """A connection that has said hello."""
    reader, writer = await asyncio.open_connection(running.host, running.port)
    connection = Http2(reader, writer)
    writer.write(_PREFACE)
    connection.send(SETTINGS, 0, b"")
    try:
        yield connection
    finally:
        writer.close()


def literal(name: str, value: str) -> bytes:
    """A header as HPACK writes it in full; for values of up to 126 bytes."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
