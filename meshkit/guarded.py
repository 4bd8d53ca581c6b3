"""Puts the gate before servicers that are not ours: health and reflection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc

from meshkit.callers import Gate
from meshkit.errors import Forbidden
from meshkit.ids import request_id
from meshkit.status import trailers

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # grpcio's own class takes no parameters


class GuardedServer:
    """What grpcio's generated `add_..._to_server` functions need of a server; hands on what they add, guarded."""

    def __init__(self, server: grpc.aio.Server, gate: Gate) -> None:
        self._server = server
        self._gate = gate

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Adds handlers of asyncio servicers."""
        self._server.add_generic_rpc_handlers(tuple(_Guarded(handler, self._gate) for handler in handlers))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, _Handler]) -> None:
        """The same handlers once more, in a form that asyncio servers ignore."""


class _Guarded(grpc.GenericRpcHandler):
    def __init__(self, handler: grpc.GenericRpcHandler, gate: Gate) -> None:
        self._handler = handler
        self._gate = gate

    def service(self, details: grpc.HandlerCallDetails) -> _Handler | None:
        """The method's handler, behind the gate."""
        found: Any = self._handler.service(details)
        return None if found is None else _behind(found, details.method, self._gate)


def _behind(found: Any, path: str, gate: Gate) -> _Handler:
    kinds: dict[tuple[bool, bool], tuple[Callable[..., _Handler], Callable[..., Any]]] = {
        (False, False): (grpc.unary_unary_rpc_method_handler, _single(found.unary_unary, path, gate)),
        (False, True): (grpc.unary_stream_rpc_method_handler, _streaming(found.unary_stream, path, gate)),
        (True, True): (grpc.stream_stream_rpc_method_handler, _streaming(found.stream_stream, path, gate)),
    }
    make, call = kinds[found.request_streaming, found.response_streaming]
    return make(call, found.request_deserializer, found.response_serializer)


def _single(call: Callable[..., Awaitable[Any]], path: str, gate: Gate) -> Callable[..., Any]:
    async def handle(request: Any, context: Any) -> Any:
        await _admit(context, path, gate)
        return await call(request, context)

    return handle


def _streaming(call: Callable[..., AsyncIterator[Any]], path: str, gate: Gate) -> Callable[..., Any]:
    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        await _admit(context, path, gate)
        async for answer in call(request, context):
            yield answer

    return handle


async def _admit(context: Any, path: str, gate: Gate) -> None:
    try:
        gate.admit(context, path)
    except Forbidden as error:
        await context.abort(error.mapped.grpc_code, error.message, tuple(trailers(error, request_id(None))))
