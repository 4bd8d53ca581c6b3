"""Mounts servicers on a gRPC server: decode, call, encode, and the one place where errors become statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Any, ClassVar, Protocol

import grpc

from gen.rpc import Metadata, Method, Peer
from meshkit.callers import Gate
from meshkit.codec import Codec, MalformedMessageError
from meshkit.errors import Cancelled, InternalFault, InvalidRequest, WeirError
from meshkit.ids import request_id
from meshkit.status import REQUEST_ID, trailers
from meshkit.telemetry import Logger, RpcMetrics


class Servicer(Protocol):
    """What a generated servicer base offers."""

    SERVICE: ClassVar[str]
    METHODS: ClassVar[tuple[Method, ...]]


class ServerContext:
    """What a servicer may know of the call it answers (gen.rpc.RpcContext)."""

    __slots__ = ("_context", "_metadata", "caller", "request_id")

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._context = context
        self.caller = ""
        self._metadata: dict[str, str | bytes] = dict(context.invocation_metadata() or ())
        self.request_id = request_id(self._metadata.get(REQUEST_ID))

    @property
    def peer(self) -> Peer:
        """Who calls."""
        return Peer(self.caller, self._context.peer())

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """What the caller sent, names in lower case; the last value of a repeated name."""
        return self._metadata

    def time_remaining(self) -> timedelta | None:
        """How long the caller still waits; None means without limit."""
        left = self._context.time_remaining()
        return None if left is None else timedelta(seconds=max(0.0, left))

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Sends headers now. After it an error can no longer become an HTTP status."""
        await self._context.send_initial_metadata(tuple(metadata))


def is_cancellation(error: BaseException) -> bool:
    """True where the caller ended the call; a CancelledError that nobody asked this task for is a fault like others."""
    if isinstance(error, GeneratorExit):
        return True
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def noun(error: BaseException, method: Method, label: str, log: Logger) -> WeirError:
    """The error as the caller may see it. Whatever is not meant for callers goes to the log alone."""
    if isinstance(error, WeirError) and not isinstance(error, InternalFault):
        return error
    log.exception("unexpected error", error, method=method.path, request_id=label)
    return InternalFault(f"internal error; the log has it under request id {label}")


class Mount:
    """Turns servicers into generic handlers of one server.

    Order around every call, outermost first: metrics (they must see every outcome), errors (the metrics read the code
    that they set), the gate (who may not call is told nothing of what it sent), codec (malformed bytes are an error
    like any other), the servicer.
    """

    def __init__(self, codec: Codec, metrics: RpcMetrics, log: Logger, gate: Gate | None = None) -> None:
        self._codec = codec
        self._metrics = metrics
        self._log = log
        self._gate = gate

    def handlers(self, servicer: Servicer) -> grpc.GenericRpcHandler:
        """The handlers of every method of one servicer."""
        table = {
            method.path.rpartition("/")[2]: self._handler(method, getattr(servicer, method.name))
            for method in servicer.METHODS
        }
        return grpc.method_handlers_generic_handler(servicer.SERVICE, table)

    def _handler(self, method: Method, call: Callable[..., Any]) -> grpc.RpcMethodHandler[Any, Any]:
        if method.server_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if method.client_streaming
                else (grpc.unary_stream_rpc_method_handler)
            )
            return make(self._streaming(method, call))
        make = (
            grpc.stream_unary_rpc_method_handler
            if method.client_streaming
            else (grpc.unary_unary_rpc_method_handler)
        )
        return make(self._single(method, call))

    def _single(self, method: Method, call: Callable[..., Any]) -> Callable[..., Any]:
        async def handle(raw: Any, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            server_context = ServerContext(context)
            with self._metrics.track(method.path) as tracked:
                try:
                    self._admit(server_context, context, method)
                    answer = await call(self._argument(method, raw), server_context)
                    return self._codec.encode(answer)
                except (Exception, asyncio.CancelledError) as error:
                    await self._abort(error, method, context, server_context.request_id, tracked.failed)
                    raise

        return handle

    def _streaming(self, method: Method, call: Callable[..., Any]) -> Callable[..., Any]:
        async def handle(raw: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
            server_context = ServerContext(context)
            with self._metrics.track(method.path) as tracked:
                try:
                    self._admit(server_context, context, method)
                    async with aclosing(call(self._argument(method, raw), server_context)) as answers:
                        async for answer in answers:
                            yield self._codec.encode(answer)
                except (Exception, asyncio.CancelledError, GeneratorExit) as error:
                    await self._abort(error, method, context, server_context.request_id, tracked.failed)
                    raise

        return handle

    def _admit(
        self, server_context: ServerContext, context: grpc.aio.ServicerContext[Any, Any], method: Method
    ) -> None:
        if self._gate is not None:
            server_context.caller = self._gate.admit(context, method.path)

    def _argument(self, method: Method, raw: Any) -> Any:
        if method.client_streaming:
            return self._requests(method, raw)
        return self._decode(method, raw)

    async def _requests(self, method: Method, raw: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for data in raw:
            yield self._decode(method, data)

    def _decode(self, method: Method, data: bytes) -> Any:
        try:
            return self._codec.decode(method.request, data)
        except MalformedMessageError as error:
            raise InvalidRequest(f"the message is malformed: {error}") from error

    async def _abort(
        self,
        error: BaseException,
        method: Method,
        context: grpc.aio.ServicerContext[Any, Any],
        label: str,
        failed: Callable[[str], None],
    ) -> None:
        """Aborts the call with the error's status; returns only where the caller is gone."""
        if is_cancellation(error):
            failed(Cancelled("").mapped.grpc_code.name)
            return
        known = noun(error, method, label, self._log)
        code = known.mapped.grpc_code
        failed(code.name)
        await context.abort(code, known.message, tuple(trailers(known, label)))
