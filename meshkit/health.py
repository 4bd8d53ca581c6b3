"""grpc.health.v1 for one server. Unlike grpcio's own servicer it ends its watches when the drain begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_RESPONSE = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # grpcio's generated base has no types
    """Reports every mounted service and the whole (`""`): SERVING between `serving` and `draining`."""

    def __init__(self) -> None:
        self._names: frozenset[str] = frozenset()
        self._status = _RESPONSE.NOT_SERVING
        self._changed = asyncio.Event()
        self._draining = False

    def serving(self, names: frozenset[str]) -> None:
        """These services can be called from now on."""
        self._names = names | {""}
        self._status = _RESPONSE.SERVING
        self._tell()

    def draining(self) -> None:
        """No service takes new calls any more; watches end once they have said so."""
        self._status = _RESPONSE.NOT_SERVING
        self._draining = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: N802 - gRPC's name
        """The status now; NOT_FOUND for a service that is not here."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return _RESPONSE(status=self._status)

    async def Watch(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:  # noqa: N802, ARG002 - gRPC's name and signature
        """The status now and at each change."""
        last: int | None = None
        while True:
            # Read together: what happens while the yield waits for the peer is the next round's.
            changed, draining = self._changed, self._draining
            known = request.service in self._names
            status = self._status if known else _RESPONSE.SERVICE_UNKNOWN
            if status != last:
                yield _RESPONSE(status=status)
                last = status
            if draining:
                return
            await changed.wait()
