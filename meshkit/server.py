"""One service process: a gRPC server with health, reflection, metrics, signals and a graceful end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol, runtime_checkable

import grpc
import uvloop
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from prometheus_client import CollectorRegistry

from meshkit.channel import MAX_MESSAGE_BYTES
from meshkit.codec import mesh_codec
from meshkit.health import Health
from meshkit.serving import Mount, Servicer
from meshkit.settings import Listen
from meshkit.telemetry import Logger, RpcMetrics, expose_metrics

_SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # On by default it would let a stray second process share the port in silence.
    ("grpc.so_reuseport", 0),
)
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Service(Protocol):
    """What a bootstrap hands to `serve`."""

    @property
    def servicers(self) -> Sequence[Servicer]:
        """What is mounted."""

    async def start(self) -> None:
        """Connects and loads what the servicers need; they are not called before."""

    async def stop(self) -> None:
        """Releases it; no servicer is called any more."""


@runtime_checkable
class Draining(Protocol):
    """A service with calls that never end by themselves, such as watches."""

    async def drain(self) -> None:
        """Called when the drain begins: ends those calls, so that nothing but the drain limit must wait for them."""


class AddressTakenError(RuntimeError):
    """Another process listens where this one should, or the address cannot be used."""


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
        self._health = Health()
        self._server = grpc.aio.server(options=_SERVER_OPTIONS)

    async def start(self) -> None:
        """Binds, connects, then reports SERVING. Raises AddressTakenError if an address is taken."""
        names = self._mount()
        self._bind()
        try:
            await self._service.start()
            self._exits.push_async_callback(self._service.stop)
            self._expose_metrics()
            await self._server.start()
        except BaseException:
            await self._exits.aclose()
            raise
        self._health.serving(frozenset(names))
        self._log.info("serving", address=self._listen.address, metrics_port=self._listen.metrics_port)

    async def stop(self) -> None:
        """Refuses new calls, lets running ones finish within the drain limit, then releases everything."""
        self._log.info("draining", limit_s=self._listen.drain.total_seconds())
        self._health.draining()
        if isinstance(self._service, Draining):
            await self._service.drain()
        await self._server.stop(self._listen.drain.total_seconds())
        await self._exits.aclose()
        self._log.info("stopped")

    def _mount(self) -> list[str]:
        """Mounts the servicers, health and reflection; returns the names of the services."""
        mount = Mount(mesh_codec(), RpcMetrics(self._registry), self._log)
        for servicer in self._service.servicers:
            self._server.add_generic_rpc_handlers((mount.handlers(servicer),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [servicer.SERVICE for servicer in self._service.servicers]
        names.append(health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection(
            (*names, reflection.SERVICE_NAME), self._server, _reflection_pool()
        )
        return names

    def _bind(self) -> None:
        address = self._listen.address
        try:
            if address.startswith("unix:"):
                _claim_socket(Path(address.removeprefix("unix:")))
            self._server.add_insecure_port(address)
        except (RuntimeError, OSError) as error:
            raise AddressTakenError(f"{self._name}: cannot listen on {address}: {error}") from error

    def _expose_metrics(self) -> None:
        host, port = self._listen.metrics_host, self._listen.metrics_port
        if not port:
            return
        try:
            httpd, thread = expose_metrics(self._registry, host, port)
        except OSError as error:
            raise AddressTakenError(
                f"{self._name}: cannot serve metrics on {host}:{port}: {error.strerror}"
            ) from error
        self._exits.callback(thread.join)
        self._exits.callback(httpd.server_close)
        self._exits.push_async_callback(asyncio.to_thread, httpd.shutdown)


def _claim_socket(path: Path) -> None:
    """Makes the socket's folder. Raises OSError if a process listens there: gRPC would take the path from it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return
    raise FileExistsError("a process listens there")


def _reflection_pool() -> descriptor_pool.DescriptorPool:
    """Weir's contracts with those of health and reflection, in a pool for reflection alone."""
    pool = mesh_codec().new_pool()
    for foreign in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        file = descriptor_pb2.FileDescriptorProto()
        foreign.CopyToProto(file)
        pool.Add(file)
    return pool


async def until_signal() -> None:
    """Returns at the first SIGINT or SIGTERM. A second one of either ends the process at once."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        asked.set()
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
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
