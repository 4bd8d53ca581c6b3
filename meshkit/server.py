"""One service process: a gRPC server with health, reflection, metrics, signals and a graceful end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import grpc
import uvloop
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from meshkit.callers import Gate
from meshkit.certificates import Certificate, CertificateUnusable, Watched
from meshkit.channel import MAX_MESSAGE_BYTES
from meshkit.codec import mesh_codec
from meshkit.guarded import GuardedServer
from meshkit.health import Health
from meshkit.reload import Reload
from meshkit.serving import Mount, Servicer
from meshkit.settings import Listen
from meshkit.telemetry import Logger, RpcMetrics, expose_metrics

MAX_METADATA_BYTES = 128 * 1024
_SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # On by default it would let a stray second process share the port in silence.
    ("grpc.so_reuseport", 0),
    # Above the edge's limit of 60 KiB. gRPC's own, 8 to 16 KiB, answers RESOURCE_EXHAUSTED, which a client takes for a
    # rate limit and tries again.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    # A compressed message is opened whole before its size is checked, and before anybody asks for a key: 30 MB on the
    # wire become 30 GB. With these it is refused as UNIMPLEMENTED (1: identity alone), and never opened.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.per_message_decompression", 0),
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
        """Binds, connects, then reports SERVING.

        Raises AddressTakenError if an address is taken, CertificateUnusable if the own certificate is.
        """
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
        security = self._listen.security
        gate = Gate(security.who, self._registry, self._log, open_health=security.transport == "mesh")
        mount = Mount(mesh_codec(), RpcMetrics(self._registry), self._log, gate)
        guarded = GuardedServer(self._server, gate)
        for servicer in self._service.servicers:
            self._server.add_generic_rpc_handlers((mount.handlers(servicer),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, guarded)
        names = [servicer.SERVICE for servicer in self._service.servicers]
        names.append(health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflector = reflection.aio.ReflectionServicer((*names, reflection.SERVICE_NAME), _reflection_pool())
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflector, guarded)
        return names

    def _bind(self) -> None:
        address = self._listen.address
        try:
            if address.startswith("unix:"):
                _claim_socket(Path(address.removeprefix("unix:")))
            self._open_port(address)
        except CertificateUnusable:
            raise
        except (RuntimeError, OSError) as error:
            raise AddressTakenError(f"{self._name}: cannot listen on {address}: {error}") from error

    def _open_port(self, address: str) -> None:
        security = self._listen.security
        if security.own is not None:
            credentials = _credentials(Watched(security.own, self._renewed))
            self._server.add_secure_port(address, credentials)
            return
        if security.transport == "loopback":
            self._log.warning("transport loopback proves nothing of who calls: use it for debugging alone")
        self._server.add_insecure_port(address)

    def _renewed(self, outcome: Certificate | CertificateUnusable) -> None:
        """Called from gRPC's threads."""
        if isinstance(outcome, Certificate):
            self._log.info("certificate renewed", ends=outcome.ends)
        else:
            self._log.warning("certificate not renewed, the one before is used on", reason=str(outcome))

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


def _credentials(own: Watched) -> grpc.ServerCredentials:
    """TLS that demands a certificate of every client. gRPC asks for the newest of ours before each handshake."""
    used = own.current()

    def configuration(certificate: Certificate) -> Any:
        pair = (certificate.key, certificate.chain)
        return grpc.ssl_server_certificate_configuration([pair], certificate.authorities)

    def newest() -> Any:
        nonlocal used
        certificate = own.current()
        if certificate is used:
            return None
        used = certificate
        return configuration(certificate)

    return grpc.dynamic_ssl_server_credentials(
        configuration(used), newest, require_client_authentication=True
    )


def _claim_socket(path: Path) -> None:
    """Makes the socket's folder, for this user alone: that is all that keeps others from calling.

    Raises OSError if others may enter the folder, or if a process listens there: gRPC would take the path from it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = path.parent.stat()
    if folder.st_uid != os.geteuid() or folder.st_mode & 0o077:
        raise PermissionError(f"{path.parent} is open to other users: make it yours, with mode 0700")
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
    name: str,
    service: Service,
    listen: Listen,
    registry: CollectorRegistry,
    log: Logger,
    reload: Reload | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM, then drains. `reload` keeps the settings up to date meanwhile."""
    if reload is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it ends no process that has not begun to serve
    server = MeshServer(name, service, listen, registry, log)
    await server.start()
    try:
        async with nullcontext() if reload is None else reload.following():
            await until_signal()
    finally:
        await server.stop()
