"""What generated clients and servicers share with whatever carries their calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from betterproto2 import Message

Metadata = Sequence[tuple[str, str | bytes]]
"""Pairs of a lower-case name and a value; names that end in `-bin` take bytes."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: where it is reached and what travels."""

    path: str
    """`/package.Service/Method`."""
    name: str
    """The Python method of the servicer."""
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool


class Transport(Protocol):
    """Carries calls to a servicer: over a channel, or inside this process.

    Every method raises the error that the servicer raised (see meshkit.errors), whichever way it travelled.
    Closing a returned iterator (`aclose`) cancels the call.
    """

    async def unary_unary(
        self, method: Method, request: Message, *, timeout: timedelta | None, metadata: Metadata
    ) -> Any:
        """One request, one response."""

    def unary_stream(
        self, method: Method, request: Message, *, timeout: timedelta | None, metadata: Metadata
    ) -> AsyncGenerator[Any, None]:
        """One request, many responses."""

    async def stream_unary(
        self, method: Method, requests: AsyncIterator[Any], *, timeout: timedelta | None, metadata: Metadata
    ) -> Any:
        """Many requests, one response."""

    def stream_stream(
        self, method: Method, requests: AsyncIterator[Any], *, timeout: timedelta | None, metadata: Metadata
    ) -> AsyncGenerator[Any, None]:
        """Many requests, many responses."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a call's connection."""

    service: str
    """The service that its certificate or its sidecar names: `router`, `edge`, ...; empty where nobody vouches."""
    address: str
    """As gRPC names it: `ipv4:127.0.0.1:4711`, `unix:`; empty for a call inside the process."""


class RpcContext(Protocol):
    """What a servicer may know of the call it answers."""

    @property
    def peer(self) -> Peer:
        """Who calls."""

    @property
    def request_id(self) -> str:
        """The request's label: the caller's own x-request-id if it is sane, else one of ours."""

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """What the caller sent, names in lower case; the last value of a repeated name."""

    def time_remaining(self) -> timedelta | None:
        """How long the caller still waits; None means without limit."""

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Sends headers now. After it an error can no longer become an HTTP status."""
