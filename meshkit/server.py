"""One service process: a gRPC server with health, reflection, metrics, signals and a graceful end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

import grpc
import uvloop
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from meshkit.channel import MAX_MESSAGE_BYTES
from meshkit.codec import mesh_codec
from meshkit.serving import Mount, Servicer
from meshkit.settings import Listen
from meshkit.telemetry import Logger, RpcMetrics, expose_metrics

_SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # On by default it would let a stray second process share the port in silence.
    ("grpc.so_reuseport", 0),
)


class Service(Protocol):
    """What a bootstrap hands to `serve`."""

    @property
    def servicers(self) -> Sequence[Servicer]:
        """What is mounted."""

    async def start(self) -> None:
        """Connects and loads what the servicers need; they are not called before."""

    async def stop(self) -> None:
        """Releases it; no servicer is called any more."""


class AddressTakenError(RuntimeError):
    """Another process listens where this one should."""


class MeshServer:
    """A running server. `start` returns once it serves; `stop` drains it.

    Args:
        name: the service's name, as in proto/ and in the logs.
        listen: where to listen and how long to drain.
    """

    def __init__(
        self, name: str, service: Service, listen: Listen, registry: CollectorRegistry, log: Logger
    ) -> None:
        self._name = name
        self._service = service
        self._listen = listen
        self._registry = registry
        self._log = log
        self._exits = AsyncExitStack()
        self._health = HealthServicer()
        self._server = grpc.aio.server(options=_SERVER_OPTIONS)

    async def start(self) -> None:
        """Binds, connects, then reports SERVING. Raises AddressTakenError if the address is taken."""
        mount = Mount(mesh_codec(), RpcMetrics(self._registry), self._log)
        for servicer in self._service.servicers:
            self._server.add_generic_rpc_handlers((mount.handlers(servicer),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [servicer.SERVICE for servicer in self._service.servicers]
        names.append(health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection(
            (*names, reflection.SERVICE_NAME), self._server, _reflection_pool()
        )
        try:
            self._server.add_insecure_port(self._listen.address)
        except RuntimeError as error:
            raise AddressTakenError(f"{self._name}: cannot listen on {self._listen.address}") from error
        await self._service.start()
        self._exits.push_async_callback(self._service.stop)
        if self._listen.metrics_port:
            httpd, _ = expose_metrics(self._registry, self._listen.metrics_host, self._listen.metrics_port)
            self._exits.callback(httpd.shutdown)
        await self._server.start()
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._log.info("serving", address=self._listen.address, metrics_port=self._listen.metrics_port)

    async def stop(self) -> None:
        """Refuses new calls, lets running ones finish within the drain limit, then releases everything."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._listen.drain.total_seconds())
        await self._exits.aclose()
        self._log.info("stopped")


def _reflection_pool() -> descriptor_pool.DescriptorPool:
    """Weir's contracts and the health contract in one pool, for reflection alone."""
    pool = mesh_codec().pool
    health = descriptor_pb2.FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(health)
    pool.Add(health)
    return pool


async def until_signal() -> None:
    """Returns at the first SIGINT or SIGTERM. A second one ends the process at once, in Python's own way."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        asked.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    await asked.wait()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Runs a process's main coroutine on uvloop."""

    async def whole() -> None:
        await main()

    uvloop.run(whole())


async def serve(
    name: str, service: Service, listen: Listen, registry: CollectorRegistry, log: Logger
) -> None:
    """Serves until SIGINT or SIGTERM, then drains."""
    server = MeshServer(name, service, listen, registry, log)
    await server.start()
    try:
        await until_signal()
    finally:
        await server.stop()
