"""Limits from Auth over PostgreSQL to the client: both faces of two routers over real gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from prometheus_client import CollectorRegistry

from gen.google.api import HttpBody
from gen.weir.auth.v1 import Key
from gen.weir.auth.v1.service import AuthClient
from gen.weir.openai.v1.service import OpenAIClient
from gen.weir.router.v1 import EmbedRequest, GenerateRequest, ListModelsRequest, Task
from gen.weir.router.v1.service import RouterClient
from gen.weir.type.v1 import ChatMessage, FinishReason, Principal, Role, Usage
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import ContextTooLong, RateLimited
from meshkit.limit_settings import LimitsBlock
from meshkit.server import MeshServer, Service
from meshkit.settings import Listen
from meshkit.telemetry import Logger
from meshkit.tokens import mint
from services.auth.bootstrap import build
from services.auth.settings import AuthBlock, AuthSettings
from services.router.adapters.rates import AuthRates
from services.router.answer import Answers
from services.router.clock import SystemClock
from services.router.domain.target import ModelSpec
from services.router.ports import Piece
from services.router.rate_settings import RateSettings
from services.router.rates.admission import Admission
from services.router.rates.leases import Leases
from services.router.rates.limited_answer import LimitedAnswer
from services.router.rates.metrics import RateMetrics
from services.router.rates.subjects import Subjects
from tests.fakes.router import FakeAttemptLog, FakeKeys, FakeTarget, faces, spec, surroundings

TOKEN = mint(os.urandom)
BEARER = (("authorization", f"Bearer {TOKEN.text}"),)
ANSWER = [
    Piece(
        text="Hello",
        finished=True,
        finish_reason=FinishReason.STOP,
        usage=Usage(input_tokens=5, output_tokens=2),
    )
]
VECTOR = [
    Piece(
        bodies=[b'{"data":[{"index":0,"embedding":[0.5]}],"usage":{"prompt_tokens":5,"total_tokens":5}}'],
        finished=True,
        usage=Usage(input_tokens=5),
    )
]
MODELS = {
    "local": ModelSpec("local", ("local",), auto=False),
    "vectors": ModelSpec("vectors", ("embed",), auto=False, task=Task.EMBED),
}
CHAT = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
GENERATE = GenerateRequest(messages=[ChatMessage(role=Role.USER, content="hi")])


class _Router:
    """A router's faces over scripted targets, limited by a real Auth (meshkit.server.Service)."""

    def __init__(self, auth: AuthClient, block: LimitsBlock, org: str) -> None:
        key = Key(
            id=TOKEN.key_id,
            secret_sha256=TOKEN.secret_sha256,
            principal=Principal(key_id=TOKEN.key_id, org=org),
        )
        targets = (
            FakeTarget(spec("local", local=True), ANSWER),
            FakeTarget(spec("embed", local=False, task=Task.EMBED), VECTOR),
        )
        clock, metrics, settings = SystemClock(), RateMetrics(CollectorRegistry()), RateSettings()
        authority = AuthRates(auth, timedelta(seconds=5))
        self.leases = Leases(authority, settings, clock, lambda: uuid4().hex, 2, metrics, Logger("test", -1))
        admission = Admission(self.leases, settings, clock, metrics)

        def limited(answers: Answers) -> Answers:
            return LimitedAnswer(answers, Subjects(block), admission, 100, metrics)

        around = surroundings(targets, FakeAttemptLog())
        self.servicers = faces(around, MODELS, "local", FakeKeys(key), limited=limited)
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to lease."""
        self._watch = asyncio.create_task(self.leases.watch())

    async def stop(self) -> None:
        """Gives back what is held."""
        assert self._watch is not None
        self._watch.cancel()
        await self.leases.stop()


@dataclass
class _Client:
    """Of one router."""

    channel: grpc.aio.Channel

    def __post_init__(self) -> None:
        transport = ChannelTransport(self.channel, mesh_codec())
        self.openai = OpenAIClient(transport)
        self.typed = RouterClient(transport)

    async def chat(self) -> bool:
        """Whether a request was let in."""
        try:
            async with aclosing(self.openai.chat_completions(HttpBody(data=CHAT), metadata=BEARER)) as parts:
                return bool([part async for part in parts])
        except RateLimited:
            return False

    async def headers(self, path: str, message: Any) -> dict[str, Any]:
        """Of a whole call by hand, in which trailers can be seen: those of the answer, or of its error."""
        ask: Any = self.channel.unary_stream(path)
        call = ask(mesh_codec().encode(message), metadata=BEARER)
        try:
            _ = [part async for part in call]
        except grpc.aio.AioRpcError as error:
            return dict(error.trailing_metadata() or ())
        return dict(await call.initial_metadata())


CHAT_PATH = "/weir.openai.v1.OpenAI/ChatCompletions"
GENERATE_PATH = "/weir.router.v1.Router/Generate"
EMBED_PATH = "/weir.router.v1.Router/Embed"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: sockets' names are limited to 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="weir-rates-"))
    yield path
    shutil.rmtree(path)


class _Mesh:
    """Auth and two routers, each served on a socket of its own."""

    def __init__(self, folder: Path, dsn: str, exits: AsyncExitStack) -> None:
        self._folder = folder
        self._dsn = dsn
        self._exits = exits
        self._log = Logger("test", -1)
        self.auth: MeshServer | None = None

    async def start(self, **org: int) -> list[_Client]:
        """With these limits of the one org that there is."""
        name = f"org-{uuid4().hex[:8]}"
        block = LimitsBlock.model_validate({"orgs": {name: org}})
        settings = AuthSettings(postgres_dsn=self._dsn, home=self._folder, auth=AuthBlock(limits=block))
        service = build(settings, CollectorRegistry(), self._log)
        auth = AuthClient(ChannelTransport(await self._served("auth", service), mesh_codec()))
        return [
            _Client(await self._served(f"router-{number}", _Router(auth, block, name))) for number in range(2)
        ]

    async def _served(self, name: str, service: Service) -> grpc.aio.Channel:
        address = f"unix:{self._folder}/{name}.sock"
        listen = Listen(address, "", 0, timedelta(seconds=1))
        server = MeshServer(name, service, listen, CollectorRegistry(), self._log)
        await server.start()
        self._exits.push_async_callback(server.stop)
        channel = open_channel(address)
        self._exits.push_async_callback(channel.close)
        return channel


@pytest.fixture
async def mesh(postgres_dsn: str, folder: Path) -> AsyncIterator[_Mesh]:
    """Nothing is started yet."""
    async with AsyncExitStack() as exits:
        yield _Mesh(folder, postgres_dsn, exits)


async def test_two_routers_one_limit(mesh: _Mesh) -> None:
    """Of 120 requests at once to two routers, exactly the 40 of the org's limit are answered."""
    one, other = await mesh.start(requests_per_minute=40)
    results = await asyncio.gather(*(client.chat() for client in (one, other) for _ in range(60)))
    later = await asyncio.gather(*(client.chat() for client in (one, other) for _ in range(10)))
    assert sum(results) + sum(later) == 40


async def test_headers_of_answers_and_refusals(mesh: _Mesh) -> None:
    """Both faces tell of requests and tokens; a refusal also when to come back, and it is a 429."""
    one, other = await mesh.start(requests_per_minute=3, tokens_per_minute=100_000)
    first = await one.headers(CHAT_PATH, HttpBody(data=CHAT))
    assert first["x-ratelimit-limit-requests"] == "3"
    assert first["x-ratelimit-remaining-requests"] == "2"
    assert first["x-ratelimit-reset-requests"] == "1m0s"
    assert first["x-ratelimit-limit-tokens"] == "100000"
    assert int(first["x-ratelimit-remaining-tokens"]) > 99_000
    second = await other.headers(GENERATE_PATH, GENERATE)
    assert second["x-ratelimit-remaining-requests"] == "1"
    third = await other.headers(EMBED_PATH, EmbedRequest(model="vectors", inputs=["hi"]))
    assert third["x-ratelimit-remaining-requests"] == "0"
    for path, message in ((CHAT_PATH, HttpBody(data=CHAT)), (GENERATE_PATH, GENERATE)):
        refused = await one.headers(path, message)
        assert refused["x-weir-http-status"] == "429"
        assert 0 < int(refused["retry-after"]) <= 61
        assert refused["x-ratelimit-limit-requests"] == "3"
        assert refused["x-ratelimit-remaining-requests"] == "0"
        assert "limit of 3 requests per minute is used up" in refused["x-weir-error"]
    listed = await one.typed.list_models(ListModelsRequest(), metadata=BEARER)
    assert listed.models  # looking is not limited


async def test_context_is_refused_with_its_own_error(mesh: _Mesh) -> None:
    """It is no question of time."""
    one, _ = await mesh.start(context_tokens=3)
    with pytest.raises(ContextTooLong, match="limit of 3 tokens in one request"):
        async with aclosing(one.openai.chat_completions(HttpBody(data=CHAT), metadata=BEARER)) as parts:
            _ = [part async for part in parts]
