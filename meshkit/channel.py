"""A transport over a grpcio channel: what generated clients use when the servicer is another process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
from betterproto2 import Message

from gen.rpc import Metadata, Method
from meshkit.codec import Codec
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
        try:
            return await call(request, timeout=_seconds(timeout), metadata=_pairs(metadata))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    def unary_stream(
        self, method: Method, request: Message, *, timeout: timedelta | None, metadata: Metadata
    ) -> AsyncIterator[Any]:
        """One request, many responses."""
        call = self._callable("unary_stream", method)
        return _responses(call(request, timeout=_seconds(timeout), metadata=_pairs(metadata)))

    async def stream_unary(
        self, method: Method, requests: AsyncIterator[Any], *, timeout: timedelta | None, metadata: Metadata
    ) -> Any:
        """Many requests, one response."""
        call = self._callable("stream_unary", method)
        try:
            return await call(requests, timeout=_seconds(timeout), metadata=_pairs(metadata))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    def stream_stream(
        self, method: Method, requests: AsyncIterator[Any], *, timeout: timedelta | None, metadata: Metadata
    ) -> AsyncIterator[Any]:
        """Many requests, many responses."""
        call = self._callable("stream_stream", method)
        return _responses(call(requests, timeout=_seconds(timeout), metadata=_pairs(metadata)))

    def _callable(self, kind: str, method: Method) -> Any:
        call = self._calls.get(method.path)
        if call is None:
            call = self._calls[method.path] = getattr(self._channel, kind)(
                method.path,
                request_serializer=self._codec.encode,
                response_deserializer=lambda data: self._codec.decode(method.response, data),
            )
        return call


async def _responses(call: Any) -> AsyncIterator[Any]:
    """The call's responses; leaving the loop early cancels the call, so that the servicer stops at once."""
    try:
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    finally:
        call.cancel()


def _seconds(timeout: timedelta | None) -> float | None:
    return None if timeout is None else timeout.total_seconds()


def _pairs(metadata: Metadata) -> tuple[tuple[str, str | bytes], ...] | None:
    return tuple(metadata) or None
