"""A router's real server and clients over scripted targets, for tests of its faces."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import grpc
from prometheus_client import CollectorRegistry

from gen.google.api import HttpBody
from gen.weir.auth.v1 import Key
from gen.weir.openai.v1.service import OpenAIClient
from gen.weir.router.v1.service import RouterClient
from gen.weir.type.v1 import Principal
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.server import MeshServer
from meshkit.serving import Servicer
from meshkit.settings import Listen
from meshkit.telemetry import Logger
from meshkit.tokens import mint
from services.router.domain.target import ModelSpec
from tests.fakes.router import FakeAttemptLog, FakeKeys, FakeTarget, faces, surroundings

TOKEN = mint(os.urandom)
KEY = Key(
    id=TOKEN.key_id, secret_sha256=TOKEN.secret_sha256, principal=Principal(key_id=TOKEN.key_id, org="acme")
)
BEARER = (("authorization", f"Bearer {TOKEN.text}"), ("x-request-id", "mine-1"))
MAX_BODY_BYTES = 10_000


class ScriptedRouter:
    """The router's servicers over scripted targets (meshkit.server.Service).

    Args:
        targets: what the models name.
        models: the first one is the default.
        more: changes of the surroundings, see tests.fakes.router.surroundings.
    """

    def __init__(self, targets: Sequence[FakeTarget], models: Sequence[ModelSpec], **more: Any) -> None:
        self.log = FakeAttemptLog()
        named: Mapping[str, ModelSpec] = {model.name: model for model in models}
        around = surroundings(targets, self.log, **more)
        self.servicers: Sequence[Servicer] = faces(
            around, named, models[0].name, FakeKeys(KEY), max_body_bytes=MAX_BODY_BYTES
        )

    async def start(self) -> None:
        """Nothing to connect."""

    async def stop(self) -> None:
        """Nothing to release."""


class Clients:
    """Both generated clients of one router."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        transport = ChannelTransport(channel, mesh_codec())
        self.typed = RouterClient(transport)
        self.openai = OpenAIClient(transport)

    async def headers(
        self, kind: Literal["unary_unary", "unary_stream"], method: str, body: bytes
    ) -> dict[str, Any]:
        """The initial metadata of an answer of OpenAI's face."""
        multi: Any = getattr(self._channel, kind)(f"/weir.openai.v1.OpenAI/{method}")
        call = multi(mesh_codec().encode(HttpBody(data=body)), metadata=BEARER)
        try:
            return dict(await call.initial_metadata())
        finally:
            call.cancel()


@asynccontextmanager
async def running(router: ScriptedRouter, folder: Path) -> AsyncIterator[Clients]:
    """Serves the router on a socket in `folder`."""
    address = f"unix:{folder}/router.sock"
    listen = Listen(address, "127.0.0.1", 0, timedelta(seconds=1))
    server = MeshServer("router", router, listen, CollectorRegistry(), Logger("router"))
    await server.start()
    channel = open_channel(address)
    try:
        yield Clients(channel)
    finally:
        await channel.close()
        await server.stop()


async def parts_of(call: AsyncGenerator[HttpBody, None]) -> list[HttpBody]:
    """All parts of an answer."""
    async with aclosing(call) as parts:
        return [part async for part in parts]


def events(parts: Sequence[HttpBody]) -> list[Any]:
    """The events of an SSE answer; `[DONE]` as None."""
    assert [part.content_type for part in parts] == ["text/event-stream"] + [""] * (len(parts) - 1)
    text = b"".join(part.data for part in parts).decode()
    data = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
    return [None if one == "[DONE]" else json.loads(one) for one in data]
