"""A transport over a grpcio channel: what generated clients use when the servicer is another process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import grpc
from betterproto2 import Message

from gen.rpc import Metadata, Method
from meshkit.codec import Codec, MalformedMessageError
from meshkit.errors import Cancelled, InternalFault
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
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


def open_channel(address: str) -> grpc.aio.Channel:
    """A plaintext channel to `host:port` or `unix:path`. The caller closes it."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


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
        call = self._callable("unary_stream", method)
        return self._responses(method, call, self._codec.encode(request), timeout, metadata)

    async def stream_unary(
        self, method: Method, requests: AsyncIterator[Any], *, timeout: timedelta | None, metadata: Metadata
    ) -> Any:
        """Many requests, one response."""
        call = self._callable("stream_unary", method)
        outgoing = _Outgoing(requests, self._codec)
        with _errors(outgoing):
            return self._decode(
                method, await call(outgoing.encoded(), timeout=_seconds(timeout), metadata=_pairs(metadata))
            )

    def stream_stream(
        self, method: Method, requests: AsyncIterator[Any], *, timeout: timedelta | None, metadata: Metadata
    ) -> AsyncGenerator[Any, None]:
        """Many requests, many responses. The call begins with the first response asked for."""
        call = self._callable("stream_stream", method)
        return self._responses(method, call, _Outgoing(requests, self._codec), timeout, metadata)

    async def _responses(
        self,
        method: Method,
        begin: Any,
        argument: bytes | _Outgoing,
        timeout: timedelta | None,
        metadata: Metadata,
    ) -> AsyncGenerator[Any, None]:
        """The call's responses; leaving the loop early cancels the call, so that the servicer stops at once."""
        outgoing = argument if isinstance(argument, _Outgoing) else None
        data = argument if outgoing is None else outgoing.encoded()
        call = begin(data, timeout=_seconds(timeout), metadata=_pairs(metadata))
        try:
            with _errors(outgoing):
                async for response in call:
                    yield self._decode(method, response)
        finally:
            call.cancel()

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


class _Outgoing:
    """The messages of a client stream, as bytes. grpcio hides what their iterator raises, so it is kept here."""

    def __init__(self, requests: AsyncIterator[Any], codec: Codec) -> None:
        self._requests = requests
        self._codec = codec
        self.failure: Exception | None = None

    async def encoded(self) -> AsyncIterator[bytes]:
        try:
            async for request in self._requests:
                yield self._codec.encode(request)
        except Exception as error:
            self.failure = error
            raise


@contextmanager
def _errors(outgoing: _Outgoing | None = None) -> Iterator[None]:
    """Turns what grpcio raises into the nouns of meshkit.errors."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    except asyncio.CancelledError as error:
        if outgoing is not None and outgoing.failure is not None:
            raise outgoing.failure from None
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Cancelled("the channel was closed under the call") from error


def _seconds(timeout: timedelta | None) -> float | None:
    return None if timeout is None else timeout.total_seconds()


def _pairs(metadata: Metadata) -> tuple[tuple[str, str | bytes], ...] | None:
    return tuple(metadata) or None
