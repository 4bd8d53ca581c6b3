"""A server of every RPC that notes who reached it, certificates for everybody, and clients of any identity."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from gen.envoy.service.auth.v3.service import AuthorizationServicer
from gen.rpc import Method, RpcContext, Transport
from gen.weir.auth.v1.service import AuthServicer
from gen.weir.cloud.v1.service import CloudAdapterServicer
from gen.weir.ledger.v1.service import LedgerServicer
from gen.weir.openai.v1.service import OpenAIServicer
from gen.weir.router.v1.service import RouterServicer
from meshkit.channel import CHANNEL_OPTIONS, ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.identity import Peers, Security, Towards, dns_name
from meshkit.server import MeshServer
from meshkit.settings import Listen, MeshSettings, Mtls
from meshkit.telemetry import Logger
from tests.fakes.ports import free_ports
from weirctl import authority
from weirctl.authority import Authority
from weirctl.certificates import ensure

SERVICERS = (
    AuthServicer, AuthorizationServicer, CloudAdapterServicer, LedgerServicer, OpenAIServicer, RouterServicer,
)  # fmt: skip
METHODS: tuple[Method, ...] = tuple(method for servicer in SERVICERS for method in servicer.METHODS)
LIMIT = timedelta(seconds=10)


@dataclass
class Noting:
    """A servicer of any contract: answers each call with an empty message and notes who called."""

    SERVICE: str
    METHODS: tuple[Method, ...]
    reached: list[tuple[str, str]] = field(default_factory=list)
    """Path and caller."""

    def __getattr__(self, name: str) -> Any:
        for method in self.METHODS:
            if method.name == name:
                return self._streaming(method) if method.server_streaming else self._single(method)
        raise AttributeError(name)

    def _single(self, method: Method) -> Any:
        async def call(argument: Any, context: RpcContext) -> Any:
            self.reached.append((method.path, context.peer.service))
            return method.response()

        return call

    def _streaming(self, method: Method) -> Any:
        async def call(argument: Any, context: RpcContext) -> AsyncIterator[Any]:
            self.reached.append((method.path, context.peer.service))
            yield method.response()

        return call


class Everything:
    """What a process of the compact topology serves (meshkit.server.Service), without anything behind it."""

    def __init__(self, servicers: Sequence[Any] | None = None) -> None:
        self.reached: list[tuple[str, str]] = []
        self.servicers: Sequence[Any] = servicers or [
            Noting(one.SERVICE, one.METHODS, self.reached) for one in SERVICERS
        ]

    async def start(self) -> None:
        """Nothing to connect."""

    async def stop(self) -> None:
        """Nothing to release."""


@dataclass
class Served:
    """A running server."""

    address: str
    service: Everything
    registry: CollectorRegistry
    log: Path

    def refused(self, path: str) -> float:
        """How often the metric says that somebody might not call."""
        return self.registry.get_sample_value("weir_rpc_callers_refused_total", {"method": path}) or 0.0


@asynccontextmanager
async def served(
    security: Security, folder: Path, service: Everything | None = None, address: str = ""
) -> AsyncIterator[Served]:
    """Everything on a free port, under `security`."""
    address = address or f"127.0.0.1:{free_ports(1)[0]}"
    running = Served(address, service or Everything(), CollectorRegistry(), folder / "server.log")
    with running.log.open("wb") as file:
        listen = Listen(address, "127.0.0.1", 0, timedelta(seconds=5), security)
        server = MeshServer("auth", running.service, listen, running.registry, Logger("auth", file.fileno()))
        await server.start()
        try:
            yield running
        finally:
            await server.stop()


def certified(home: Path, now: datetime | None = None, **mtls: object) -> MeshSettings:
    """A mesh whose certificates were made at `now`."""
    settings = MeshSettings(home=home, transport="mtls", mtls=Mtls.model_validate(mtls))
    ensure(settings, now or datetime.now(UTC))
    return settings


def security_of(settings: MeshSettings, service: Peers) -> Security:
    """Of a server that has the certificate of `service`."""
    return Security("mtls", settings.certificate_files(service), settings.mtls.trust_domain)


@asynccontextmanager
async def client(
    address: str, settings: MeshSettings | None, caller: Peers = "router", server: str = "auth"
) -> AsyncIterator[Transport]:
    """Carries calls as `caller`; without settings in plain text."""
    towards = None if settings is None else Towards(settings.certificate_files(caller), server)
    async with open_channel(address, towards) as channel:
        yield ChannelTransport(channel, mesh_codec())


@asynccontextmanager
async def raw_client(
    address: str, trusted: bytes, own: tuple[bytes, bytes] | None, server: str = "auth"
) -> AsyncIterator[Transport]:
    """Carries calls with any certificate and key, or none."""
    chain, key = own or (None, None)
    credentials = grpc.ssl_channel_credentials(trusted, key, chain)
    options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", dns_name(server)))
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        yield ChannelTransport(channel, mesh_codec())


def ca_of(settings: MeshSettings) -> Authority:
    """The CA that `weir up` made."""
    folder = settings.home / "tls" / "ca"
    return authority.restore((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())


async def call(
    transport: Transport, method: Method, metadata: Sequence[tuple[str, str]] = (), *, ends: bool = False
) -> None:
    """Calls an RPC with an empty message and reads its answers. Raises WeirError.

    A stream of the client's stays silent, or ends at once: where a call is refused while a message is being written,
    grpcio tells INTERNAL instead of the server's status.
    """
    if method.client_streaming:
        requests = _nothing() if ends else _silence()
        answers = transport.stream_stream(method, requests, timeout=LIMIT, metadata=metadata)
    elif method.server_streaming:
        answers = transport.unary_stream(method, method.request(), timeout=LIMIT, metadata=metadata)
    else:
        await transport.unary_unary(method, method.request(), timeout=LIMIT, metadata=metadata)
        return
    async for _ in answers:
        pass


async def _silence() -> AsyncGenerator[Any, None]:
    await asyncio.Event().wait()
    yield None


async def _nothing() -> AsyncGenerator[Any, None]:
    none: tuple[Any, ...] = ()
    for one in none:
        yield one
