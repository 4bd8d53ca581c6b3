"""What renderers of answers have in common: one for each of OpenAI's formats, fed with the pieces of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from gen.weir.cloud.v1 import GenerateResponse as Piece
from gen.weir.type.v1 import Usage
from meshkit.errors import WeirError

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream"
_ENCODER = msgspec.json.Encoder()
_TOP = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What every object of one answer repeats, and how its pieces are to be read."""

    id: str
    """32 hex digits; the renderer puts its format's own prefix in front."""
    created_s: int
    """Unix time."""
    model: str
    """The target's own name for it."""
    provider: str
    """`local` or `cloud`."""
    native: bool
    """True if the pieces' bodies are objects of this very format; otherwise they are rendered from what was read."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What the answer took. Known with the last usage of an answer and at its end."""

    usage: Usage
    """As the client received it."""
    cost_nano_usd: int | None
    """Of all attempts; None where one of them has no price."""
    target: str
    attempts: int


class Rendering(Protocol):
    """Renders one answer. One per request; asked for a stream or for a whole answer, never both."""

    def events(self, head: AnswerHead, piece: Piece, bill: Bill | None) -> bytes:
        """The SSE of one piece, empty where it adds nothing; the finished piece's also ends the stream.

        `bill` is there with every piece of a native answer that carries usage, and with the finished piece.
        """

    def error(self, error: WeirError) -> bytes:
        """The SSE that ends a broken stream: nobody shall take it for a whole answer."""

    def whole(self, head: AnswerHead, pieces: Sequence[Piece], bill: Bill) -> bytes:
        """The JSON of a whole answer."""


def weir_object(bill: Bill) -> dict[str, Any]:
    """Weir's own object within a `usage` object: cost in 10^-9 US dollars, null where there is no price."""
    return {"cost_nano_usd": bill.cost_nano_usd, "target": bill.target, "attempts": bill.attempts}


def with_bill(body: bytes, bill: Bill, estimated: Mapping[str, Any] | None = None) -> bytes:
    """A provider's JSON object with `weir` put into its `usage`.

    Where it has none that is an object, `estimated` takes its place; without that the body stays as it is.
    """
    top = _TOP.decode(body)
    try:
        usage: dict[str, Any] = dict(_TOP.decode(top["usage"]))
    except (KeyError, msgspec.DecodeError):
        return body if estimated is None else _ENCODER.encode({**top, "usage": estimated})
    usage["weir"] = weir_object(bill)
    return _ENCODER.encode({**top, "usage": usage})


def with_provider(body: bytes, provider: str) -> bytes:
    """A provider's compact JSON object, which has no `provider` of its own, with ours in front.

    Args:
        body: a JSON object in compact form (CloudAdapter's contract).
        provider: plain ASCII without quotes.
    """
    rest = body[1:]
    comma = b"" if rest == b"}" else b","
    return b'{"provider":"' + provider.encode("ascii") + b'"' + comma + rest


def passed_on(head: AnswerHead, piece: Piece, bill: Bill | None) -> list[bytes]:
    """A provider's own objects of one piece of a stream, with `provider` in front and `weir` in their usage."""
    bodies: Sequence[bytes] = piece.bodies
    if bill is not None and piece.usage is not None:
        bodies = [with_bill(body, bill) if b'"usage"' in body else body for body in bodies]
    return [with_provider(body, head.provider) for body in bodies]


class UsageAtEnd:
    """Says whether a stream still owes its client the usage that it asked for: providers omit it.

    Args:
        wanted: the client asked for usage at the end of its stream.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted

    def owed(self, piece: Piece) -> bool:
        """True with the finished piece, unless a provider's own usage was passed on."""
        if piece.usage is not None and piece.bodies:
            self._wanted = False
        return self._wanted and piece.finished


def whole_passed_on(
    head: AnswerHead, pieces: Sequence[Piece], bill: Bill, estimated: Mapping[str, Any] | None = None
) -> bytes:
    """The one object of a provider's whole answer, with the bill (see with_bill) and `provider` in it."""
    body = [body for piece in pieces for body in piece.bodies][-1]
    return with_provider(with_bill(body, bill, estimated), head.provider)


def sse(bodies: Sequence[bytes]) -> bytes:
    """JSON objects as unnamed SSE events, in one piece."""
    return b"".join(b"data: " + body + b"\n\n" for body in bodies)
