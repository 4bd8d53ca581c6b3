"""One request to the misbehaving provider, and the bytes with which it is answered."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

CREATED_S = 1_700_000_000
INPUT_TOKENS = 9
WORDS = (
    "It ",
    "holds ",
    "what ",
    "the ",
    "mill ",
    "can ",
    "use, ",
    "and ",
    "lets ",
    "the ",
    "rest ",
    "flow ",
    "on. ",
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
)


class ClientGoneError(Exception):
    """The client closed the connection before its answer was complete."""


@dataclass(frozen=True)
class Behaviour:
    """What a model name asks for: `fault`, or `fault:key=value,key=value`.

    `chunks` (60): words of the answer; `gap_ms` (0): wait before each but the first; `times`: how often the fault
    happens before the model answers as it should (absent: always). Further keys are the fault's own.
    """

    fault: str
    options: Mapping[str, int]

    @classmethod
    def of(cls, model: str) -> Behaviour:
        """The behaviour that a model's name spells."""
        fault, _, rest = model.partition(":")
        pairs = (pair.partition("=") for pair in rest.split(",") if pair)
        return cls(fault, {key: int(value) for key, _, value in pairs})

    def option(self, name: str, default: int) -> int:
        """A number from the model's name."""
        return self.options.get(name, default)


@dataclass
class Seen:
    """One request as the provider saw it."""

    body: dict[str, Any]
    headers: Mapping[str, str]
    """Names in lower case."""
    raw: bytes
    """The body as it came."""
    connection: int
    """Which connection it came on, counted from 0."""
    written: int = 0
    """Bytes of the answer so far."""
    answered: bool = False
    """The answer was given to its end, whatever it was."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client left before the answer was complete."""

    @property
    def model(self) -> str:
        """The model asked for."""
        return str(self.body.get("model", ""))

    def summary(self) -> dict[str, Any]:
        """For GET /log: neither the prompt nor the key."""
        return {
            "model": self.model,
            "stream": bool(self.body.get("stream")),
            "answered": self.answered,
            "gone": self.gone.is_set(),
            "connection": self.connection,
            "request_id": self.headers.get("x-request-id", ""),
        }


class Exchange:
    """The answering side of one request."""

    def __init__(
        self, seen: Seen, behaviour: Behaviour, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.seen = seen
        self.behaviour = behaviour
        self.stream = bool(seen.body.get("stream"))
        self.chunks = behaviour.option("chunks", 60)
        self._reader = reader
        self._writer = writer

    @property
    def wants_usage(self) -> bool:
        """The client asked for usage in a stream."""
        options = self.seen.body.get("stream_options") or {}
        return bool(options.get("include_usage"))

    async def wait(self, seconds: float) -> None:
        """Waits as a provider that thinks. Raises ClientGoneError as soon as the client leaves."""
        try:
            async with asyncio.timeout(seconds):
                await self._reader.read(1)
        except TimeoutError:
            return
        raise ClientGoneError

    async def forever(self) -> None:
        """Waits until the client leaves."""
        await self._reader.read(1)
        raise ClientGoneError

    async def send(self, raw: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(raw)
        await self._writer.drain()
        self.seen.written += len(raw)

    async def answer(
        self, status: int, body: bytes, content_type: str = "application/json", extra: Iterable[str] = ()
    ) -> None:
        """A whole answer with its length."""
        head = [
            f"HTTP/1.1 {status} -",
            f"content-type: {content_type}",
            f"content-length: {len(body)}",
            *extra,
        ]
        await self.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    async def error(
        self, status: int, message: str, *, code: str | None = None, kind: str = "invalid_request_error",
        param: str | None = None, extra: Iterable[str] = (),
    ) -> None:  # fmt: skip
        """OpenAI's error object."""
        fault = {"message": message, "type": kind, "param": param, "code": code}
        await self.answer(status, json.dumps({"error": fault}).encode(), extra=extra)

    async def begin_stream(self) -> None:
        """The head of an event stream."""
        await self.send(STREAM_HEAD + b"\r\n")

    async def piece(self, raw: bytes) -> None:
        """One piece of the chunked body."""
        await self.send(b"%x\r\n%b\r\n" % (len(raw), raw))

    async def event(self, data: bytes) -> None:
        """One event of the stream."""
        await self.piece(b"data: %b\n\n" % data)

    async def end_stream(self) -> None:
        """The clean end of the chunked body."""
        await self.send(b"0\r\n\r\n")

    def cut(self) -> None:
        """Ends the connection in the middle of whatever is being sent."""
        self._writer.close()

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def words(count: int) -> list[str]:
    """The words of an answer of `count` tokens."""
    return [WORDS[number % len(WORDS)] for number in range(count)]


def usage(count: int) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": count,
        "total_tokens": INPUT_TOKENS + count,
        "prompt_tokens_details": {"cached_tokens": 4},
    }


def completion(model: str, count: int, **changes: Any) -> bytes:
    """A chat.completion; `changes` replace top-level fields, None removes one."""
    message = {"role": "assistant", "content": "".join(words(count)), "refusal": None}
    whole: dict[str, Any] = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": CREATED_S,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage(count),
        "provider": "a name of the provider's own",
    }
    return _compact({key: value for key, value in {**whole, **changes}.items() if value is not None})


def chunk(model: str, delta: dict[str, Any], finish: str | None = None, **changes: Any) -> bytes:
    """A chat.completion.chunk with one choice; `changes` replace or add top-level fields."""
    return _compact(
        {
            "id": "chatcmpl-fake",
            "object": "chat.completion.chunk",
            "created": CREATED_S,
            "model": model,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
            "provider": "a name of the provider's own",
            **changes,
        }
    )


def _compact(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
