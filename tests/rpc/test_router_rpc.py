"""The router's two faces over real gRPC, on scripted targets."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from datetime import timedelta
from typing import Any

import betterproto2
import grpc
import pytest
from prometheus_client import CollectorRegistry

from gen.google.api import HttpBody
from gen.weir.auth.v1 import Key
from gen.weir.ledger.v1 import Outcome
from gen.weir.openai.v1 import GetModelRequest
from gen.weir.openai.v1 import ListModelsRequest as OpenAIListModelsRequest
from gen.weir.openai.v1.service import OpenAIClient
from gen.weir.router.v1 import GenerateRequest, GenerateResponse, ListModelsRequest, OnCut
from gen.weir.router.v1.service import RouterClient
from gen.weir.type.v1 import ChatMessage, FinishReason, Principal, Role, Usage
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import (
    BodyTooLarge,
    InvalidRequest,
    KeyInvalid,
    KeyMissing,
    ModelNotFound,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTruncated,
    WeirError,
)
from meshkit.server import MeshServer
from meshkit.serving import Servicer
from meshkit.settings import Listen
from meshkit.telemetry import Logger
from meshkit.tokens import mint
from services.router.domain.target import ModelSpec
from services.router.ports import Piece
from tests.fakes.router import FakeAttemptLog, FakeKeys, FakeTarget, faces, spec, surroundings

TOKEN = mint(os.urandom)
KEY = Key(
    id=TOKEN.key_id, secret_sha256=TOKEN.secret_sha256, principal=Principal(key_id=TOKEN.key_id, org="acme")
)
BEARER = (("authorization", f"Bearer {TOKEN.text}"), ("x-request-id", "mine-1"))
LOCAL = [
    Piece(text="Hel", usage=Usage(input_tokens=5, output_tokens=1)),
    Piece(text="lo"),
    Piece(finished=True, finish_reason=FinishReason.STOP, usage=Usage(input_tokens=5, output_tokens=2)),
]
CHUNKS = [
    Piece(bodies=[b'{"id":"c1","x":1.0}', b'{"id":"c2"}'], text="ab"),
    Piece(bodies=[b'{"id":"c3"}'], finish_reason=FinishReason.STOP, finished=True),
]
MODELS = {
    "local": ModelSpec("local", ("local",), auto=False),
    "cloud": ModelSpec("cloud", ("cloud",), auto=False),
    "gpt-4": ModelSpec("gpt-4", ("local", "cloud"), auto=False),
    "cloud-first": ModelSpec("cloud-first", ("cloud", "local"), auto=False),
}


class OneRouter:
    """The router's servicers over scripted targets (meshkit.server.Service)."""

    def __init__(self, local: Sequence[Any], cloud: Sequence[Any]) -> None:
        self.local = FakeTarget(spec("local", local=True, on_cut=OnCut.ERROR), local)
        self.cloud = FakeTarget(spec("cloud", local=False, on_cut=OnCut.ERROR), cloud)
        self.log = FakeAttemptLog()
        around = surroundings((self.local, self.cloud), self.log)
        self.servicers: Sequence[Servicer] = faces(
            around, MODELS, "gpt-4", FakeKeys(KEY), max_body_bytes=1_000
        )

    async def start(self) -> None:
        """Nothing to connect."""

    async def stop(self) -> None:
        """Nothing to release."""


class Mesh:
    """A running router and its clients."""

    def __init__(self, service: OneRouter, channel: grpc.aio.Channel) -> None:
        self.service = service
        self.channel = channel
        transport = ChannelTransport(channel, mesh_codec())
        self.typed = RouterClient(transport)
        self.openai = OpenAIClient(transport)

    async def chat(self, body: bytes, metadata: Any = BEARER) -> list[HttpBody]:
        async with aclosing(self.openai.chat_completions(HttpBody(data=body), metadata=metadata)) as parts:
            return [part async for part in parts]

    async def generate(self, request: GenerateRequest) -> list[GenerateResponse]:
        async with aclosing(self.typed.generate(request, metadata=BEARER)) as events:
            return [event async for event in events]


@pytest.fixture
async def serve(tmp_path: Any) -> AsyncIterator[Any]:
    """Starts routers on scripted targets."""
    async with AsyncExitStack() as exits:

        async def start(local: Sequence[Any] = LOCAL, cloud: Sequence[Any] = CHUNKS) -> Mesh:
            service = OneRouter(local, cloud)
            address = f"unix:{tmp_path}/router.sock"
            listen = Listen(address, "127.0.0.1", 0, timedelta(seconds=1))
            server = MeshServer("router", service, listen, CollectorRegistry(), Logger("router"))
            await server.start()
            exits.push_async_callback(server.stop)
            channel = open_channel(address)
            exits.push_async_callback(channel.close)
            return Mesh(service, channel)

        yield start


def body(**fields: Any) -> bytes:
    """A chat request."""
    return json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def events(parts: list[HttpBody]) -> list[Any]:
    """The events of an SSE answer; `[DONE]` as None."""
    lines = b"".join(part.data for part in parts).decode().split("\n\n")
    return [
        None if line == "data: [DONE]" else json.loads(line.removeprefix("data: ")) for line in lines if line
    ]


async def test_whole_local_answer(serve: Any) -> None:
    """One JSON object in OpenAI's shape, with the provider at its top and usage as the target counted."""
    mesh = await serve()
    (part,) = await mesh.chat(body(model="local"))
    answer = json.loads(part.data)
    assert part.content_type == "application/json"
    assert answer["provider"] == "local"
    assert answer["model"] == "local-model"
    assert answer["choices"][0]["message"]["content"] == "Hello"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
        "weir": {"cost_nano_usd": None, "target": "local", "attempts": 1},
    }


async def test_streamed_local_answer(serve: Any) -> None:
    """Role first, text as it comes, finish reason, `[DONE]`; usage only where asked for."""
    mesh = await serve()
    seen = events(await mesh.chat(body(model="local", stream=True)))
    assert [event["choices"][0]["delta"].get("content") for event in seen[:-1]] == ["Hel", "lo", None]
    assert seen[0]["choices"][0]["delta"]["role"] == "assistant"
    assert seen[-2]["choices"][0]["finish_reason"] == "stop"
    assert seen[-1] is None
    asked = events(await mesh.chat(body(model="local", stream=True, stream_options={"include_usage": True})))
    assert asked[-2]["usage"]["completion_tokens"] == 2
    assert asked[-2]["choices"] == []


async def test_streamed_cloud_answer_is_the_providers_bytes(serve: Any) -> None:
    """A provider's chunks pass as bytes with `provider` in front; a batch stays one message."""
    mesh = await serve()
    parts = await mesh.chat(body(model="cloud", stream=True))
    assert parts[0].data == (
        b'data: {"provider":"cloud","id":"c1","x":1.0}\n\ndata: {"provider":"cloud","id":"c2"}\n\n'
    )
    assert parts[-1].data.endswith(b"data: [DONE]\n\n")


async def test_headers_name_the_target(serve: Any) -> None:
    """The caller's own request id, the target that answers and why are sent before the first byte."""
    mesh = await serve(local=[UpstreamError("refused")])
    call = mesh.channel.unary_stream("/weir.openai.v1.OpenAI/ChatCompletions")(
        mesh_codec().encode(HttpBody(data=body(model="gpt-4", stream=True))), metadata=BEARER
    )
    headers = dict(await call.initial_metadata())
    assert headers["x-request-id"] == "mine-1"
    assert headers["x-weir-target"] == "cloud"
    assert headers["x-weir-route-reason"] == "model gpt-4; local failed: UPSTREAM_ERROR"
    call.cancel()


async def test_absent_model_is_the_default(serve: Any) -> None:
    """No model, or an empty one, is answered by the configured default."""
    mesh = await serve()
    (part,) = await mesh.chat(body())
    assert json.loads(part.data)["provider"] == "local"
    assert mesh.service.log.ended[0].model_asked == "gpt-4"


@pytest.mark.parametrize(
    ("request_body", "metadata", "kind", "param"),
    [
        (body(model="gpt-9"), BEARER, ModelNotFound, "model"),
        (b"{", BEARER, InvalidRequest, None),
        (body(messages=[]), BEARER, InvalidRequest, "messages"),
        (body(), (), KeyMissing, None),
        (body(), (("authorization", "Bearer weir_nope"),), KeyInvalid, None),
        (body(pad="x" * 1_000), BEARER, BodyTooLarge, None),
    ],
)
async def test_refusals_reach_no_target(
    serve: Any, request_body: bytes, metadata: Any, kind: type[WeirError], param: str | None
) -> None:
    """A refused request is an error with its reason and field, and no target is asked."""
    mesh = await serve()
    with pytest.raises(kind) as caught:
        await mesh.chat(request_body, metadata)
    assert caught.value.param == param
    assert mesh.service.local.asked == []
    assert mesh.service.log.begun == []


async def test_cut_stream_ends_in_an_error_event(serve: Any) -> None:
    """After the first token the client gets OpenAI's error object as an event: no finish_reason, no `[DONE]`."""
    mesh = await serve(local=[LOCAL[0], UpstreamTruncated("cut")])
    seen = events(await mesh.chat(body(model="gpt-4", stream=True)))
    assert seen[-1]["error"]["code"] == "upstream_truncated"
    assert all(event.get("choices", [{}])[0].get("finish_reason") is None for event in seen)


async def test_answer_after_a_silent_beginning_is_the_next_targets(serve: Any) -> None:
    """A provider that sent signs of life and no token leaves nothing behind: head, text and end are the next one's."""
    mesh = await serve(local=[Piece(), UpstreamError("gone")])
    parts = await mesh.chat(body(model="gpt-4", stream=True))
    assert parts[0].data.startswith(b'data: {"provider":"cloud","id":"c1"')
    mesh.service.cloud.script, mesh.service.local.script = [Piece(), UpstreamError("gone")], LOCAL
    seen = events(await mesh.chat(body(model="cloud-first", stream=True)))
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in seen if event) == "Hello"
    assert {event["provider"] for event in seen if event} == {"local"}


async def test_fault_of_our_own_in_mid_stream_is_an_error_event(serve: Any) -> None:
    """An HTTP client takes the end of a stream for the end of the answer, so it is told; the text stays in the log."""
    mesh = await serve(cloud=[CHUNKS[0], Piece(bodies=["no bytes"])])  # type: ignore[list-item] # breaks the renderer
    call = mesh.channel.unary_stream("/weir.openai.v1.OpenAI/ChatCompletions")(
        mesh_codec().encode(HttpBody(data=body(model="cloud", stream=True))), metadata=BEARER
    )
    parts = [mesh_codec().decode(HttpBody, await call.read()) for _ in range(2)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert events(parts)[-1] == {
        "error": {"message": "internal error", "type": "server_error", "param": None, "code": None}
    }
    assert [entry.outcome for entry in mesh.service.log.ended] == [Outcome.CANCELLED]


async def test_empty_answer(serve: Any) -> None:
    """A model that ends at once has answered: with nothing, and whole."""
    nothing = [Piece(finished=True, finish_reason=FinishReason.STOP, usage=Usage(input_tokens=5))]
    mesh = await serve(local=nothing)
    (part,) = await mesh.chat(body(model="local"))
    assert json.loads(part.data)["choices"][0]["message"]["content"] == ""
    seen = events(await mesh.chat(body(model="local", stream=True)))
    assert [event["choices"][0]["finish_reason"] for event in seen[:-1]] == [None, "stop"]
    assert seen[-1] is None
    typed = await mesh.generate(
        GenerateRequest(model="local", messages=[ChatMessage(role=Role.USER, content="x")])
    )
    assert [betterproto2.which_one_of(event, "event")[0] for event in typed] == ["started", "finished"]


async def test_callers_deadline_reaches_the_loop(serve: Any) -> None:
    """A deadline shorter than the first-token limit ends the attempt as cancelled, and nobody else is asked."""
    mesh = await serve(local=[None])
    request = GenerateRequest(model="gpt-4", messages=[ChatMessage(role=Role.USER, content="hi")])
    with pytest.raises(UpstreamTimeout):
        async for _ in mesh.typed.generate(request, metadata=BEARER, timeout=timedelta(seconds=0.05)):
            pass
    async with asyncio.timeout(5):
        while not mesh.service.log.ended:  # noqa: ASYNC110 - the server hears of it a little later
            await asyncio.sleep(0.01)
    assert [entry.outcome for entry in mesh.service.log.ended] == [Outcome.CANCELLED]
    assert mesh.service.cloud.asked == []


async def test_clients_that_go_away_leave_nothing_behind(serve: Any) -> None:
    """Whenever and however often clients leave, every begun attempt ends once, and no task or generator is left."""
    seed = random.randrange(2**32)  # noqa: S311 - chance, not secrecy
    print(f"seed {seed}")  # noqa: T201 - to run a failure again
    chance = random.Random(seed)  # noqa: S311 - chance, not secrecy
    script = [0.002, LOCAL[0], 0.002, LOCAL[1], 0.002, UpstreamTruncated("cut")]
    mesh = await serve(local=script, cloud=[0.002, CHUNKS[0], 0.002, CHUNKS[1]])
    await mesh.chat(body(model="cloud"))
    before = len(asyncio.all_tasks())

    async def leave() -> None:
        request = body(model=chance.choice(["gpt-4", "cloud", "local"]), stream=chance.random() < 0.7)
        with suppress(TimeoutError, WeirError):
            async with asyncio.timeout(chance.uniform(0, 0.02)):
                await mesh.chat(request)

    for _ in range(25):
        await asyncio.gather(*(leave() for _ in range(20)))
    log = mesh.service.log
    async with asyncio.timeout(5):
        while len(log.ended) < len(log.begun) or len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - plain state
            await asyncio.sleep(0.01)
    keys = [entry.entry_id for entry in log.ended]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {entry.entry_id for entry in log.begun}
    for target in (mesh.service.local, mesh.service.cloud):
        assert target.closed == len(target.asked)


async def test_typed_answer(serve: Any) -> None:
    """started, deltas, finished; with target, reason, finish reason and usage."""
    mesh = await serve()
    request = GenerateRequest(model="local", messages=[ChatMessage(role=Role.USER, content="hi")])
    seen = await mesh.generate(request)
    assert seen[0].started is not None
    assert seen[0].started.target is not None
    assert (seen[0].started.request_id, seen[0].started.target.name) == ("mine-1", "local")
    assert [event.delta.text for event in seen if event.delta] == ["Hel", "lo"]
    assert seen[-1].finished is not None
    assert seen[-1].finished.finish_reason == FinishReason.STOP
    assert seen[-1].finished.usage == Usage(input_tokens=5, output_tokens=2)


async def test_typed_answer_of_a_provider(serve: Any) -> None:
    """The typed contract gets a provider's text as read by the adapter."""
    mesh = await serve()
    request = GenerateRequest(model="cloud", messages=[ChatMessage(role=Role.USER, content="hi")])
    assert "".join(event.delta.text for event in await mesh.generate(request) if event.delta) == "ab"


async def test_typed_cut_is_a_status(serve: Any) -> None:
    """A typed stream that breaks ends in its status, without `finished`."""
    mesh = await serve(local=[LOCAL[0], UpstreamTruncated("cut")])
    with pytest.raises(UpstreamTruncated):
        await mesh.generate(
            GenerateRequest(model="local", messages=[ChatMessage(role=Role.USER, content="hi")])
        )


@pytest.mark.parametrize(
    ("method", "request_"),
    [("ListModels", OpenAIListModelsRequest()), ("GetModel", GetModelRequest(model="local"))],
)
async def test_models_have_the_labels_of_every_answer(
    serve: Any, method: str, request_: OpenAIListModelsRequest | GetModelRequest
) -> None:
    """The caller's own request id, and how long it took; there is no target to name."""
    mesh = await serve()
    call = mesh.channel.unary_unary(f"/weir.openai.v1.OpenAI/{method}")(
        mesh_codec().encode(request_), metadata=BEARER
    )
    headers = dict(await call.initial_metadata())
    assert headers["x-request-id"] == "mine-1"
    assert headers["openai-processing-ms"].isdecimal()
    assert "x-weir-target" not in headers
    assert json.loads(mesh_codec().decode(HttpBody, await call).data)["object"] in {"list", "model"}


async def test_models_that_can_be_used(serve: Any) -> None:
    """A model is listed while one of its targets is up, with those that are."""
    mesh = await serve()
    mesh.service.local.up = False
    listed = await mesh.typed.list_models(ListModelsRequest(), metadata=BEARER)
    assert [(model.name, [target.name for target in model.targets]) for model in listed.models] == [
        ("cloud", ["cloud"]),
        ("gpt-4", ["cloud"]),
        ("cloud-first", ["cloud"]),
    ]
    with pytest.raises(KeyMissing):
        await mesh.typed.list_models(ListModelsRequest())
