"""Servicers that do what a test says, and clients that reach them over either transport."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from gen.rpc import RpcContext, Transport
from gen.weir.ledger.v1 import RecordRequest, RecordResponse, UsageRequest, UsageResponse
from gen.weir.ledger.v1.service import LedgerClient, LedgerServicer
from gen.weir.router.v1 import (
    Delta,
    EmbedRequest,
    EmbedResponse,
    GenerateRequest,
    GenerateResponse,
    ListModelsRequest,
    ListModelsResponse,
    Model,
)
from gen.weir.router.v1.service import RouterClient, RouterServicer
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import WeirError
from meshkit.inprocess import InProcessTransport
from meshkit.serving import Mount
from meshkit.telemetry import Logger, RpcMetrics

Answer = Callable[[RpcContext], Awaitable[Any]]
Stream = Callable[[RpcContext], AsyncIterator[Any]]


async def _no_models(_: RpcContext) -> ListModelsResponse:
    return ListModelsResponse(models=[Model(name="local")])


async def _two_deltas(_: RpcContext) -> AsyncIterator[GenerateResponse]:
    yield GenerateResponse(delta=Delta(text="a"))
    yield GenerateResponse(delta=Delta(text="b"))


@dataclass
class ScriptedRouter(RouterServicer):
    """Does what the test says, and notes what it saw of its last call."""

    answer: Answer = _no_models
    stream: Stream = _two_deltas
    context: RpcContext | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def list_models(self, request: ListModelsRequest, context: RpcContext) -> ListModelsResponse:
        self.context = context
        try:
            answer: ListModelsResponse = await self.answer(context)
            return answer
        finally:
            self.closed.set()

    async def generate(
        self, request: GenerateRequest, context: RpcContext
    ) -> AsyncIterator[GenerateResponse]:
        self.context = context
        try:
            async with aclosing(self.stream(context)) as events:  # type: ignore[type-var] # an async generator
                async for event in events:
                    yield event
        finally:
            self.closed.set()

    async def embed(self, request: EmbedRequest, context: RpcContext) -> EmbedResponse:
        return EmbedResponse()


@dataclass
class EchoLedger(LedgerServicer):
    """Acknowledges each batch with its own number."""

    failure: WeirError | None = None

    async def record(
        self, requests: AsyncIterator[RecordRequest], context: RpcContext
    ) -> AsyncIterator[RecordResponse]:
        async for request in requests:
            if self.failure is not None:
                raise self.failure
            yield RecordResponse(acked_through=request.sequence)

    async def usage(self, request: UsageRequest, context: RpcContext) -> UsageResponse:
        return UsageResponse()


@dataclass
class Mesh:
    """A client of each service, the servicers behind them, and what they wrote to the log."""

    kind: str
    servicer: ScriptedRouter
    ledger_servicer: EchoLedger
    router: RouterClient
    ledger: LedgerClient
    channel: grpc.aio.Channel | None
    _log: Path

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines()]


@asynccontextmanager
async def open_mesh(kind: str, log_path: Path) -> AsyncIterator[Mesh]:
    """The same servicers behind a transport of `kind`: "channel" or "inprocess"."""
    router, ledger = ScriptedRouter(), EchoLedger()
    with log_path.open("wb") as file:
        log = Logger("router", file.fileno())
        if kind == "inprocess":
            transports: list[Transport] = [InProcessTransport(router, log), InProcessTransport(ledger, log)]
            clients = RouterClient(transports[0]), LedgerClient(transports[1])
            yield Mesh(kind, router, ledger, *clients, None, log_path)
            return
        server = grpc.aio.server()
        mount = Mount(mesh_codec(), RpcMetrics(CollectorRegistry()), log)
        server.add_generic_rpc_handlers((mount.handlers(router), mount.handlers(ledger)))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with open_channel(f"127.0.0.1:{port}") as channel:
            transport = ChannelTransport(channel, mesh_codec())
            clients = RouterClient(transport), LedgerClient(transport)
            yield Mesh(kind, router, ledger, *clients, channel, log_path)
        await server.stop(None)
