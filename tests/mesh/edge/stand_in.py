"""Routers for the edge's tests: they do what a request's header says, and tell the test what they saw."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from gen.google.api import HttpBody
from gen.rpc import RpcContext
from gen.weir.error.v1 import Reason
from gen.weir.openai.v1 import GetModelRequest, ListModelsRequest
from gen.weir.openai.v1.service import OpenAIServicer
from gen.weir.router.v1 import (
    Delta,
    Embedding,
    EmbedRequest,
    EmbedResponse,
    GenerateRequest,
    GenerateResponse,
    ListModelsResponse,
    Model,
)
from gen.weir.router.v1 import ListModelsRequest as RouterListModelsRequest
from gen.weir.router.v1.service import RouterServicer
from meshkit.errors import BY_REASON, WeirError
from meshkit.server import MeshServer
from meshkit.serving import Servicer
from meshkit.settings import Listen
from meshkit.telemetry import Logger

DO = "x-test-do"
"""The request header that says what to do: echo (without it), fail:REASON, stock:CODE, crash, silent, stream,
break, flood:N."""
JSON = "application/json"
SSE = "text/event-stream"
FIRST = 'data: {"n":1,"text":"żółw 🐢"}\n\n'.encode()
LAST = b"data: [DONE]\n\n"
FLOOD_CHUNK_BYTES = 65_536
SECRET = "a secret that must not get out"
ANSWER_HEADERS = {
    "x-weir-route-reason": "model gpt-4; local failed: UPSTREAM_TIMEOUT",
    "x-weir-attempts": "2",
    "openai-processing-ms": "17",
}
"""What the router says of an answer, besides its request id and target."""


@dataclass
class Script:
    """What the test and the stand-ins tell each other."""

    seen: list[dict[str, str | bytes]] = field(default_factory=list)
    """The metadata of every call, the last one last."""
    rpcs: list[str] = field(default_factory=list)
    """The name of every call of weir.openai.v1.OpenAI."""
    models: list[str] = field(default_factory=list)
    """The model of every GetModel."""
    bodies: list[HttpBody] = field(default_factory=list)
    """Every HttpBody that arrived."""
    time_remaining: list[timedelta | None] = field(default_factory=list)
    """The deadline of every call."""
    workers: list[str] = field(default_factory=list)
    """The name of the worker that got each call."""
    sent: int = 0
    """Chunks of a flood that gRPC took."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a call waits for `release`."""
    release: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a call was cancelled while it waited."""

    def note(self, worker: str, context: RpcContext) -> str:
        """Notes a call and returns what its header says."""
        self.workers.append(worker)
        self.seen.append(dict(context.metadata))
        self.time_remaining.append(context.time_remaining())
        return str(context.metadata.get(DO, "echo"))

    def reset(self) -> None:
        """Forgets everything; the stand-ins go on with it."""
        vars(self).update(vars(Script()))

    async def wait(self) -> None:
        """Returns when the test releases the call."""
        self.reached.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class OpenAIStandIn(OpenAIServicer):
    """weir.openai.v1.OpenAI as the header `x-test-do` says."""

    def __init__(self, name: str, script: Script) -> None:
        self._name = name
        self._script = script

    async def chat_completions(self, request: HttpBody, context: RpcContext) -> AsyncIterator[HttpBody]:
        async for body in self._answer("ChatCompletions", request, context):
            yield body

    async def completions(self, request: HttpBody, context: RpcContext) -> AsyncIterator[HttpBody]:
        async for body in self._answer("Completions", request, context):
            yield body

    async def responses(self, request: HttpBody, context: RpcContext) -> AsyncIterator[HttpBody]:
        async for body in self._answer("Responses", request, context):
            yield body

    async def embeddings(self, request: HttpBody, context: RpcContext) -> HttpBody:
        await self._begin("Embeddings", context)
        self._script.bodies.append(request)
        await self._send_headers(context)
        return HttpBody(content_type=JSON, data=request.data)

    async def list_models(self, request: ListModelsRequest, context: RpcContext) -> HttpBody:
        await self._begin("ListModels", context)
        return HttpBody(content_type=JSON, data=b'{"object": "list", "data": []}')

    async def get_model(self, request: GetModelRequest, context: RpcContext) -> HttpBody:
        self._script.models.append(request.model)
        await self._begin("GetModel", context)
        return HttpBody(content_type=JSON, data=b'{"object": "model"}')

    async def _begin(self, rpc: str, context: RpcContext) -> tuple[str, str]:
        """What to do, and its argument."""
        what, _, argument = self._script.note(self._name, context).partition(":")
        self._script.rpcs.append(rpc)
        await _fail(what, argument, context)
        return what, argument

    async def _send_headers(self, context: RpcContext) -> None:
        labels = (("x-request-id", context.request_id), ("x-weir-target", self._name))
        await context.send_initial_metadata((*labels, *ANSWER_HEADERS.items()))

    async def _answer(self, rpc: str, request: HttpBody, context: RpcContext) -> AsyncIterator[HttpBody]:
        self._script.bodies.append(request)
        what, argument = await self._begin(rpc, context)
        if what == "silent":
            await self._script.wait()
        await self._send_headers(context)
        if what == "echo":
            yield HttpBody(content_type=JSON, data=request.data)
        elif what == "flood":
            for _ in range(int(argument)):
                yield HttpBody(content_type=SSE, data=b"x" * FLOOD_CHUNK_BYTES)
                self._script.sent += 1
        else:
            yield HttpBody(content_type=SSE, data=FIRST)
            await self._script.wait()
            if what == "break":
                raise failure("UPSTREAM_TRUNCATED")
            yield HttpBody(content_type=SSE, data=LAST)


class RouterStandIn(RouterServicer):
    """weir.router.v1.Router: a generation of the model `wait` waits for the test."""

    def __init__(self, name: str, script: Script) -> None:
        self._name = name
        self._script = script

    async def generate(
        self, request: GenerateRequest, context: RpcContext
    ) -> AsyncIterator[GenerateResponse]:
        what, _, argument = self._script.note(self._name, context).partition(":")
        await _fail(what, argument, context)
        yield GenerateResponse(delta=Delta(text="żółw"))
        if request.model == "wait":
            await self._script.wait()
        yield GenerateResponse(delta=Delta(text=" 🐢"))

    async def embed(self, request: EmbedRequest, context: RpcContext) -> EmbedResponse:
        what, _, argument = self._script.note(self._name, context).partition(":")
        await _fail(what, argument, context)
        return EmbedResponse(embeddings=[Embedding(values=[0.5, -1.0]) for _ in request.inputs])

    async def list_models(
        self,
        request: RouterListModelsRequest,
        context: RpcContext,
    ) -> ListModelsResponse:
        what, _, argument = self._script.note(self._name, context).partition(":")
        await _fail(what, argument, context)
        return ListModelsResponse(models=[Model(name="local")])


def failure(reason: str) -> WeirError:
    """The error of that reason, with everything an error can carry."""
    return BY_REASON[Reason[reason]](
        f'{reason}: "quoted", 100 %, żółw', param="messages[0]", retry_after=timedelta(seconds=7)
    )


async def _fail(what: str, argument: str, context: RpcContext) -> None:
    if what == "fail":
        raise failure(argument)
    if what == "crash":
        raise ZeroDivisionError(SECRET)
    if what == "stock":
        # Past meshkit on purpose: a status as a gRPC library makes it, without our details.
        bare: Any = context
        await bare._context.abort(grpc.StatusCode[argument], SECRET)


class _Service:
    def __init__(self, servicers: list[Servicer]) -> None:
        self.servicers = servicers

    async def start(self) -> None:
        """Needs nothing."""

    async def stop(self) -> None:
        """Holds nothing."""


@asynccontextmanager
async def worker(address: str, script: Script, name: str = "worker") -> AsyncIterator[MeshServer]:
    """A router worker that serves at `address`; stopped without grace at the end."""
    service = _Service([OpenAIStandIn(name, script), RouterStandIn(name, script)])
    listen = Listen(address=address, metrics_host="127.0.0.1", metrics_port=0, drain=timedelta(0))
    server = MeshServer("router", service, listen, CollectorRegistry(), Logger("router"))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def _main(address: str, name: str) -> None:
    async with worker(address, Script(), name):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
