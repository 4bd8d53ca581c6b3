"""A transport over a grpcio channel: what generated clients use when the servicer is another process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import grpc
from betterproto2 import Message

from gen.rpc import Metadata, Method
from meshkit.certificates import Certificate, Watched
from meshkit.codec import Codec, MalformedMessageError
from meshkit.errors import Cancelled, InternalFault
from meshkit.identity import Towards, dns_name
from meshkit.renewing_channel import RenewingChannel
from meshkit.status import from_rpc_error

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Above the edge's body limit of 20 MiB; gRPC's own default of 4 MiB would answer RESOURCE_EXHAUSTED."""

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Whatever may have cost money is an attempt of the router, with an entry; never a retry that nobody sees.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    # A neighbour that comes back is found soon: what it has to say may be that a key was revoked meanwhile.
    ("grpc.max_reconnect_backoff_ms", 300),
)


def open_channel(address: str, towards: Towards | None = None) -> grpc.aio.Channel:
    """A channel to `host:port` or `unix:path`. The caller closes it.

    With `towards` both sides prove who they are, and renewed certificates are used for new connections; without it all
    is plain text. Raises meshkit.certificates.CertificateUnusable.
    """
    if towards is None:
        return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", dns_name(towards.server)))

    def dial(own: Certificate) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(own.authorities, own.key, own.chain)
        return grpc.aio.secure_channel(address, credentials, options=options)

    return RenewingChannel(Watched(towards.own), dial)


class ChannelTransport:
    """Carries calls over one channel (gen.rpc.Transport). Safe for concurrent use; it does not own the channel."""

    def __init__(self, channel: grpc.aio.Channel, codec: Codec) -> None:
        self._channel = channel
        self._codec = codec
        self._calls: dict[str, Any] = {}

    async def unary_unary(
        self, method: Method, request: Message, *, timeout: timedelta | None, metadata: Metadata
    ) -> Any:
        """One request, one response."""
        call = self._callable("unary_unary", method)
        data = self._codec.encode(request)
        with _errors():
            return self._decode(
                method, await call(data, timeout=_seconds(timeout), metadata=_pairs(metadata))
            )

    def unary_stream(
        self, method: Method, request: Message, *, timeout: timedelta | None, metadata: Metadata
    ) -> AsyncGenerator[Any, None]:
        """One request, many responses. The call begins with the first response asked for."""
        begin = self._callable("unary_stream", method)
        data = self._codec.encode(request)
        return self._responses(
            method, lambda: (begin(data, timeout=_seconds(timeout), metadata=_pairs(metadata)), None)
        )

    async def stream_unary(
        self, method: Method, requests: AsyncIterator[Any], *, timeout: timedelta | None, metadata: Metadata
    ) -> Any:
        """Many requests, one response."""
        begin = self._callable("stream_unary", method)
        call = begin(timeout=_seconds(timeout), metadata=_pairs(metadata))
        pump = _Pump(call, requests, self._codec)
        try:
            with _errors(pump):
                return self._decode(method, await call)
        finally:
            await pump.stop()

    def stream_stream(
        self, method: Method, requests: AsyncIterator[Any], *, timeout: timedelta | None, metadata: Metadata
    ) -> AsyncGenerator[Any, None]:
        """Many requests, many responses. The call begins with the first response asked for."""
        begin = self._callable("stream_stream", method)

        def call_and_pump() -> tuple[Any, _Pump]:
            call = begin(timeout=_seconds(timeout), metadata=_pairs(metadata))
            return call, _Pump(call, requests, self._codec)

        return self._responses(method, call_and_pump)

    async def _responses(
        self, method: Method, begin: Callable[[], tuple[Any, _Pump | None]]
    ) -> AsyncGenerator[Any, None]:
        """The call's responses; leaving the loop early cancels the call, so that the servicer stops at once."""
        call, pump = begin()
        try:
            with _errors(pump):
                async for response in call:
                    yield self._decode(method, response)
        finally:
            call.cancel()
            if pump is not None:
                await pump.stop()

    def _callable(self, kind: str, method: Method) -> Any:
        call = self._calls.get(method.path)
        if call is None:
            # Bytes cross grpcio as they are: it swallows what a serializer of its own raises.
            call = self._calls[method.path] = getattr(self._channel, kind)(method.path)
        return call

    def _decode(self, method: Method, data: bytes) -> Any:
        try:
            return self._codec.decode(method.response, data)
        except MalformedMessageError as error:
            raise InternalFault(f"{method.path} answered with a malformed message") from error


class _Pump:
    """Writes the messages of a client stream.

    grpcio would take an iterator, but hides what it raises and leaves it to the garbage collector when the call ends;
    so the writing is a task of ours, which ends with the call and closes the iterator.
    """

    def __init__(self, call: Any, requests: AsyncIterator[Any], codec: Codec) -> None:
        self._call = call
        self._requests = requests
        self._codec = codec
        self.failure: Exception | None = None
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Returns when the iterator is closed."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if isinstance(self._requests, AsyncGenerator):
            await self._requests.aclose()

    async def _run(self) -> None:
        try:
            async for request in self._requests:
                await self._call.write(self._codec.encode(request))
            await self._call.done_writing()
        except Exception as error:  # noqa: BLE001 - whatever the iterator raised is its reader's to see
            if not self._call.done():
                self.failure = error
                self._call.cancel()


@contextmanager
def _errors(pump: _Pump | None = None) -> Iterator[None]:
    """Turns what grpcio raises into the nouns of meshkit.errors."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    except asyncio.CancelledError as error:
        if pump is not None and pump.failure is not None:
            raise pump.failure from None
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Cancelled("the channel was closed under the call") from error


def _seconds(timeout: timedelta | None) -> float | None:
    return None if timeout is None else timeout.total_seconds()


def _pairs(metadata: Metadata) -> tuple[tuple[str, str | bytes], ...] | None:
    return tuple(metadata) or None
