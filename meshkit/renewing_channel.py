"""A channel that proves who it is by a certificate, and takes the certificate that follows it without losing a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, Self

import grpc

from meshkit.certificates import Certificate, Watched

_LOOK_EVERY_S: Final = 1.0
"""Between two looks at the files. A certificate is renewed long before it ends."""

Dial = Callable[[Certificate], grpc.aio.Channel]


class _Line:
    """One channel of grpcio with the calls that run on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.idle = asyncio.Event()
        self.idle.set()
        self._running = 0
        self._callables: dict[tuple[str, str], Any] = {}

    def begin(self, kind: str, path: str, codecs: Sequence[Any], arguments: Any, named: Any) -> Any:
        """Begins a call."""
        callable_ = self._callables.get((kind, path))
        if callable_ is None:
            callable_ = self._callables[kind, path] = getattr(self.channel, kind)(path, *codecs)
        call = callable_(*arguments, **named)
        self._running += 1
        self.idle.clear()
        call.add_done_callback(self._ended)
        return call

    def _ended(self, _: Any) -> None:
        self._running -= 1
        if not self._running:
            self.idle.set()


class RenewingChannel(grpc.aio.Channel):
    """Calls begin on a connection with the newest certificate; those that run end on the one they began on.

    Args:
        certificates: the certificate to use; looked at when a call begins, at most once a second.
        dial: opens a channel that uses a certificate.
    """

    def __init__(self, certificates: Watched, dial: Dial) -> None:
        self._certificates = certificates
        self._dial = dial
        self._certificate = certificates.current()
        self._line = _Line(dial(self._certificate))
        self._look_at_s = monotonic() + _LOOK_EVERY_S
        self._retiring: dict[asyncio.Task[None], _Line] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        """The channel itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes it."""
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes every connection; running calls are cancelled after `grace` seconds."""
        self._closed = True
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        for line in (self._line, *retiring.values()):
            await line.channel.close(grace)
        for task in retiring:
            with suppress(asyncio.CancelledError):
                await task

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - grpcio's signature
        """The newest connection's."""
        return self._newest().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Of the newest connection."""
        await self._newest().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns when the newest connection stands."""
        await self._newest().channel.channel_ready()

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = None,  # noqa: FBT001 - grpcio's signature
    ) -> Any:
        """Begins calls with one request and one response."""
        return self._beginning("unary_unary", method, (request_serializer, response_deserializer))

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = None,  # noqa: FBT001 - grpcio's signature
    ) -> Any:
        """Begins calls with one request and many responses."""
        return self._beginning("unary_stream", method, (request_serializer, response_deserializer))

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = None,  # noqa: FBT001 - grpcio's signature
    ) -> Any:
        """Begins calls with many requests and one response."""
        return self._beginning("stream_unary", method, (request_serializer, response_deserializer))

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = None,  # noqa: FBT001 - grpcio's signature
    ) -> Any:
        """Begins calls with many requests and many responses."""
        return self._beginning("stream_stream", method, (request_serializer, response_deserializer))

    def _beginning(self, kind: str, path: str, codecs: Sequence[Any]) -> Callable[..., Any]:
        def begin(*arguments: Any, **named: Any) -> Any:
            return self._newest().begin(kind, path, codecs, arguments, named)

        return begin

    def _newest(self) -> _Line:
        now_s = monotonic()
        if now_s < self._look_at_s or self._closed:
            return self._line
        self._look_at_s = now_s + _LOOK_EVERY_S
        certificate = self._certificates.current()
        if certificate is not self._certificate:
            self._certificate = certificate
            self._retire(self._line)
            self._line = _Line(self._dial(certificate))
        return self._line

    def _retire(self, line: _Line) -> None:
        async def close_when_idle() -> None:
            await line.idle.wait()
            await line.channel.close()

        task = asyncio.ensure_future(close_when_idle())
        self._retiring[task] = line
        task.add_done_callback(lambda done: self._retiring.pop(done, None))
