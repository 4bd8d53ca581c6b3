"""A router on scripted targets and its typed client, over real gRPC."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from datetime import date
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from gen.weir.auth.v1 import Key
from gen.weir.router.v1 import GenerateRequest, GenerateResponse
from gen.weir.router.v1.service import RouterClient
from gen.weir.type.v1 import ChatMessage, Principal, Role
from meshkit.channel import ChannelTransport
from meshkit.codec import mesh_codec
from meshkit.errors import WeirError
from meshkit.serving import Servicer
from meshkit.status import DETAILS_TRAILER
from meshkit.tokens import mint
from pricing.cost import Rates
from pricing.price_list import Price, PriceList, Side
from services.router.domain.target import ModelSpec
from tests.fakes.router import FakeAttemptLog, FakeKeys, FakeTarget, faces, spec, surroundings

TOKEN = mint(os.urandom)
BEARER = (("authorization", f"Bearer {TOKEN.text}"), ("x-request-id", "mine-1"))
USER = ChatMessage(role=Role.USER, content="hi")
PRICE = Price(
    "v1",
    Side.LOCAL,
    "*",
    "*",
    date(2020, 1, 1),
    "a test",
    Rates(input=10**9, cached_input=0, output=2 * 10**9),
)
MODELS = {
    "local": ModelSpec("local", ("local",), auto=False),
    "cloud": ModelSpec("cloud", ("cloud",), auto=False),
    "both": ModelSpec("both", ("local", "cloud"), auto=False),
    "secret": ModelSpec("secret", ("cloud",), auto=False),
}


class OneRouter:
    """The router's servicers over scripted targets (meshkit.server.Service)."""

    def __init__(self, local: Sequence[Any], cloud: Sequence[Any], *capabilities: str) -> None:
        can = frozenset(capabilities)
        self.local = FakeTarget(spec("local", local=True, capabilities=can, prefill="plain"), local)
        self.cloud = FakeTarget(spec("cloud", local=False), cloud)
        self.log = FakeAttemptLog()
        around = surroundings((self.local, self.cloud), self.log, prices=PriceList([PRICE]))
        principal = Principal(key_id=TOKEN.key_id, org="acme")
        key = Key(
            id=TOKEN.key_id,
            secret_sha256=TOKEN.secret_sha256,
            principal=principal,
            models=["local", "cloud", "both", "nowhere"],
        )
        self.servicers: Sequence[Servicer] = faces(around, MODELS, "both", FakeKeys(key))

    async def start(self) -> None:
        """Nothing to connect."""

    async def stop(self) -> None:
        """Nothing to release."""


class Typed:
    """A running router and its typed client."""

    def __init__(self, service: OneRouter, channel: grpc.aio.Channel) -> None:
        self.service = service
        self.channel = channel
        self.client = RouterClient(ChannelTransport(channel, mesh_codec()))

    async def ask(self, **fields: Any) -> list[GenerateResponse]:
        """All events of one answer."""
        request = GenerateRequest(**{"messages": [USER], **fields})
        async with aclosing(self.client.generate(request, metadata=BEARER)) as events:
            return [event async for event in events]

    async def refused(self, kind: type[WeirError], **fields: Any) -> WeirError:
        """The error of a request that is not answered."""
        with pytest.raises(kind) as caught:
            await self.ask(**fields)
        return caught.value


async def status_of(typed: Typed, request: GenerateRequest) -> status_pb2.Status:
    """The google.rpc.Status of a call that fails."""
    call: Any = typed.channel.unary_stream("/weir.router.v1.Router/Generate")(
        mesh_codec().encode(request),  # type: ignore[arg-type] # the stubs cannot know what no serialiser takes
        metadata=BEARER,
    )
    with suppress(grpc.aio.AioRpcError):
        async for _ in call:
            pass
    trailers = dict(await call.trailing_metadata() or ())
    return status_pb2.Status.FromString(trailers[DETAILS_TRAILER])


async def until(holds: Callable[[], bool]) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - the server hears of it a little later
            await asyncio.sleep(0.01)
