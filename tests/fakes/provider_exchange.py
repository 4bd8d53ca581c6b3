"""One request to the misbehaving provider, and the bytes with which it is answered."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

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
_FRAMED_EVENT = re.compile(rb"[0-9a-f]+\r\ndata: (?P<data>[^\n]*)\n\n\r\n")
_KEY_END = 4


class ClientGoneError(Exception):
    """The client closed the connection before its answer was complete."""


@dataclass(frozen=True)
class Behaviour:
    """What a model name asks for: `fault`, or `fault:key=value,key=value`.

    `chunks` (60): words of the answer; `gap_ms` (0): wait before each but the first; what ends a fault is in
    provider_choice.py. Further keys are the fault's own.
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
    path: str = ""
    """Of the URL, without query."""
    endpoint: str = "chat/completions"
    """The endpoint that the path is; empty where it is none."""
    deployment: str | None = None
    """Of an Azure path that names one: it stands for the model."""
    azure: bool = False
    """It came as Azure's requests do."""
    begun_ms: float = 0.0
    """When it arrived, since the provider started."""
    answered_ms: float | None = None
    """When its answer was given to its end, since it arrived."""
    client_gone_ms: float | None = None
    """When the client left before that, since it arrived."""

    @property
    def model(self) -> str:
        """The model asked for."""
        return str(self.body.get("model", "")) if self.deployment is None else self.deployment

    @property
    def key(self) -> str:
        """The secret that was sent; empty if none was."""
        return self.headers.get("api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def request_id(self) -> str:
        """The label that it came with; empty if none."""
        return self.headers.get("x-request-id", "")

    def summary(self) -> dict[str, Any]:
        """For GET /log: neither the prompt nor the key."""
        return {
            "model": self.model,
            "path": self.path,
            "endpoint": self.endpoint,
            "stream": bool(self.body.get("stream")),
            "answered": self.answered,
            "gone": self.gone.is_set(),
            "connection": self.connection,
            "request_id": self.request_id,
            "key_end": self.key[-_KEY_END:],
            "begun_ms": self.begun_ms,
            "answered_ms": self.answered_ms,
            "client_gone_ms": self.client_gone_ms,
            "bytes_sent": self.written,
            "body_keys": sorted(self.body),
            "messages": len(self.body.get("messages") or ()),
        }


class Rendering(Protocol):
    """Puts chat completions into the form of another endpoint; whatever else comes stays as it is. One per answer."""

    def whole(self, body: bytes) -> bytes:
        """The body of a whole answer."""

    def event(self, data: bytes) -> list[bytes]:
        """The events, as server-sent events on the wire, that say what one event of a chat stream says."""

    def end(self) -> list[bytes]:
        """Those that were kept for the clean end."""


class Exchange:
    """The answering side of one request."""

    def __init__(
        self, seen: Seen, behaviour: Behaviour, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
        rendering: Rendering | None = None,
    ) -> None:  # fmt: skip
        self.seen = seen
        self.behaviour = behaviour
        self.stream = bool(seen.body.get("stream")) and seen.endpoint != "embeddings"
        self.chunks = behaviour.option("chunks", 60)
        self._reader = reader
        self._writer = writer
        self._rendering = rendering

    @property
    def wants_usage(self) -> bool:
        """The client asked for usage in a stream; /responses tells it unasked."""
        if self.seen.endpoint == "responses":
            return True
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
        """Bytes as they are; but a framed event of a chat stream in the form of the endpoint that was asked."""
        if self._rendering is not None and (framed := _FRAMED_EVENT.fullmatch(raw)):
            raw = b"".join(_framed(event) for event in self._rendering.event(framed["data"]))
        if self._writer.is_closing():
            raise ClientGoneError
        self._writer.write(raw)
        await self._writer.drain()
        self.seen.written += len(raw)

    async def answer(
        self, status: int, body: bytes, content_type: str = "application/json", extra: Iterable[str] = ()
    ) -> None:
        """A whole answer with its length, in the form of the endpoint that was asked."""
        if self._rendering is not None:
            said = body.lstrip()
            body = body[: len(body) - len(said)] + self._rendering.whole(said)
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
        fault: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
        if self.seen.azure and code == "content_filter":
            verdict = {"hate": {"filtered": True, "severity": "high"}}
            fault["innererror"] = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": verdict}
        await self.answer(status, json.dumps({"error": fault}).encode(), extra=extra)

    async def begin_stream(self) -> None:
        """The head of an event stream."""
        await self.send(STREAM_HEAD + b"\r\n")

    async def piece(self, raw: bytes) -> None:
        """One piece of the chunked body."""
        await self.send(_framed(raw))

    async def event(self, data: bytes) -> None:
        """One event of the stream."""
        await self.piece(b"data: %b\n\n" % data)

    async def end_stream(self) -> None:
        """The clean end of the chunked body."""
        for event in self._rendering.end() if self._rendering is not None else ():
            await self.piece(event)
        await self.send(b"0\r\n\r\n")

    def cut(self) -> None:
        """Ends the connection in the middle of whatever is being sent."""
        self._writer.close()

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def _framed(raw: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(raw), raw)


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
