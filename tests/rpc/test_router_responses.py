"""OpenAI's Responses API over real gRPC: a scripted local model, and a provider behind a real cloud adapter."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gen.google.api import HttpBody
from gen.weir.ledger.v1 import Outcome
from gen.weir.type.v1 import FinishReason, Role, Usage
from meshkit.errors import (
    BodyTooLarge,
    InvalidRequest,
    KeyMissing,
    ModelNotFound,
    UnsupportedParameter,
    UpstreamError,
    UpstreamTruncated,
    WeirError,
)
from services.router.adapters.cloud import CloudTarget
from services.router.domain.target import ANYTHING, Capabilities, Limits, ModelSpec, TargetSpec
from services.router.ports import Piece
from tests.fakes.provider import FakeProvider
from tests.fakes.provider_exchange import words
from tests.fakes.router import FakeTarget, spec
from tests.fakes.running_adapter import running_adapter
from tests.harness.scripted_router import BEARER, Clients, ScriptedRouter, parts_of, running

LOCAL = [
    Piece(text="Hel", usage=Usage(input_tokens=5, output_tokens=1)),
    Piece(text="lo"),
    Piece(finished=True, finish_reason=FinishReason.STOP, usage=Usage(input_tokens=5, output_tokens=2)),
]
CREATED = b'{"type":"response.created","sequence_number":0,"response":{"id":"resp_lost"}}'
PATIENT = Limits(*[timedelta(seconds=20)] * 4)
ANY_EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
TEXT = "".join(words(60))


def cloud_spec(name: str, fault: str, *lacks: str) -> TargetSpec:
    """A target at the fake provider, which behaves as `fault` says."""
    known = spec(name, local=False)
    return replace(
        known,
        target=replace(known.target, provider="fake", model=fault),
        limits=PATIENT,
        capabilities=Capabilities(frozenset({ANYTHING}), frozenset(lacks)),
    )


class Mesh:
    """A running router with a local target, one that fails, and two at a provider: with and without the API."""

    def __init__(self, provider: FakeProvider, client: Any) -> None:
        self.provider = provider
        self.local = FakeTarget(spec("local", local=True), LOCAL)
        self.lost = FakeTarget(spec("lost", local=False), [Piece(bodies=[CREATED]), UpstreamError("gone")])
        targets: list[Any] = [
            self.local,
            self.lost,
            CloudTarget(cloud_spec("native", "instant:chunks=60"), client),
            CloudTarget(cloud_spec("chat", "instant:chunks=60", "responses"), client),
            CloudTarget(cloud_spec("caller", "tool_call", "responses"), client),
        ]
        both = {"either": ("chat", "native"), "failing": ("lost", "local")}
        models = {name: (name,) for name in ("local", "native", "chat", "caller")} | both
        self.router = ScriptedRouter(
            targets, [ModelSpec(name, tuple(names), auto=False) for name, names in models.items()]
        )
        self.clients: Clients

    async def ask(self, metadata: Any = BEARER, **fields: Any) -> list[HttpBody]:
        """The parts of an answer to `hi`, or to another input."""
        data = json.dumps({"input": "hi", **fields}).encode()
        return await parts_of(self.clients.openai.responses(HttpBody(data=data), metadata=metadata))


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    """A running router."""
    with tempfile.TemporaryDirectory(prefix="weir-resp-") as folder:
        async with (
            FakeProvider() as provider,
            running_adapter(provider, Path(folder), in_process=True) as adapter,
        ):
            made = Mesh(provider, adapter.client)
            async with running(made.router, Path(folder)) as made.clients:
                yield made


def events(parts: Sequence[HttpBody]) -> list[dict[str, Any]]:
    """The events of a stream, each strictly of OpenAI's schema, named as its data says, numbered from 0."""
    assert [part.content_type for part in parts] == ["text/event-stream"] + [""] * (len(parts) - 1)
    seen = []
    for number, text in enumerate(filter(None, b"".join(part.data for part in parts).decode().split("\n\n"))):
        name, data = text.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert (name, number) == (f"event: {event['type']}", event["sequence_number"])
        ANY_EVENT.validate_json(json.dumps(event), strict=True)
        seen.append(event)
    return seen


def response_of(parts: Sequence[HttpBody]) -> dict[str, Any]:
    """The one object of a unary answer, strictly of OpenAI's schema."""
    (part,) = parts
    assert part.content_type == "application/json"
    Response.model_validate_json(part.data, strict=True)
    response: dict[str, Any] = json.loads(part.data)
    return response


def text_of(response: dict[str, Any]) -> str:
    """The text of a response."""
    return Response.model_validate(response).output_text


async def test_local_answer(mesh: Mesh) -> None:
    """A local model knows no such API: it gets a conversation, and its text becomes a response."""
    response = response_of(await mesh.ask(model="local", instructions="be brief", max_output_tokens=9))
    assert (text_of(response), response["status"]) == ("Hello", "completed")
    assert (response["provider"], response["model"]) == ("local", "local-model")
    assert response["usage"]["total_tokens"] == 7
    assert response["usage"]["weir"] == {"cost_nano_usd": None, "target": "local", "attempts": 1}
    (asked,) = mesh.local.asked
    said = [(message.role, message.content) for message in asked.typed.messages]
    assert said == [(Role.SYSTEM, "be brief"), (Role.USER, "hi")]
    assert asked.max_output_tokens == 9


async def test_streamed_local_answer(mesh: Mesh) -> None:
    """The text comes as it is made; the last event holds the same response as a unary answer."""
    seen = events(await mesh.ask(model="local", stream=True))
    deltas = [event["delta"] for event in seen if event["type"] == "response.output_text.delta"]
    assert deltas == ["Hel", "lo"]
    assert seen[-1]["type"] == "response.completed"
    whole = response_of(await mesh.ask(model="local"))
    own = {"id", "output", "created_at"}
    assert {key: value for key, value in seen[-1]["response"].items() if key not in own} == {
        key: value for key, value in whole.items() if key not in own
    }


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_a_target_with_the_api_gets_the_request_as_it_is(mesh: Mesh, *, stream: bool) -> None:
    """What the provider answers passes with its own ids; `provider` and `weir` are put in."""
    parts = await mesh.ask(model="native", stream=stream, store=True, tools=[{"type": "web_search"}])
    response = events(parts)[-1]["response"] if stream else response_of(parts)
    assert (response["id"], response["provider"], text_of(response)) == ("resp_fake", "cloud", TEXT)
    assert response["usage"]["weir"]["target"] == "native"
    (seen,) = mesh.provider.seen
    assert seen.endpoint == "responses"
    assert seen.body == {
        "input": "hi", "model": "instant:chunks=60", "stream": stream, "store": True,
        "tools": [{"type": "web_search"}],
    }  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_a_target_without_the_api_gets_a_chat(mesh: Mesh, *, stream: bool) -> None:
    """The provider is asked for a chat completion, and what it answers becomes a response."""
    parts = await mesh.ask(model="chat", stream=stream, instructions="be brief", max_output_tokens=99)
    response = events(parts)[-1]["response"] if stream else response_of(parts)
    assert (response["status"], text_of(response)) == ("completed", TEXT)
    assert response["id"].startswith("resp_")
    assert (response["provider"], response["model"]) == ("cloud", "instant:chunks=60")
    usage = response["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (9, 60)
    assert usage["input_tokens_details"]["cached_tokens"] == 4
    (seen,) = mesh.provider.seen
    assert seen.endpoint == "chat/completions"
    assert seen.body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]
    assert seen.body["max_tokens"] == 99
    assert not {"input", "instructions", "max_output_tokens"} & seen.body.keys()


async def test_a_chats_tool_call_becomes_an_item(mesh: Mesh) -> None:
    """The function's name goes out in the chat's form, and the call comes back as an item."""
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}
    seen = events(await mesh.ask(model="caller", stream=True, tools=[tool]))
    (item,) = seen[-1]["response"]["output"]
    assert (item["type"], item["call_id"], item["name"]) == ("function_call", "call_1", "look")
    assert seen[-1]["response"]["tools"] == [tool]
    (asked,) = mesh.provider.seen
    function = {"name": "look", "parameters": {"type": "object"}, "strict": True}
    assert asked.body["tools"] == [{"type": "function", "function": function}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"wizardry": 1}, "wizardry"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ],
)
async def test_what_only_a_responses_api_can_do_goes_there(
    mesh: Mesh, fields: dict[str, Any], param: str
) -> None:
    """It takes the other targets out; where none is left the parameter is named, and nobody is asked."""
    await mesh.ask(model="either", **fields)
    assert [seen.endpoint for seen in mesh.provider.seen] == ["responses"]
    for model in ("chat", "local"):
        with pytest.raises(UnsupportedParameter) as caught:
            await mesh.ask(model=model, **fields)
        assert caught.value.param == param
    assert len(mesh.provider.seen) == 1
    assert mesh.local.asked == []


async def test_what_a_local_model_cannot_is_named(mesh: Mesh) -> None:
    """In the terms of the request that the client sent."""
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    with pytest.raises(UnsupportedParameter) as caught:
        await mesh.ask(model="local", input=[{"role": "user", "content": [picture]}])
    assert caught.value.param == "input[0].content[0]"


async def test_fail_over_before_the_first_token_leaves_no_trace(mesh: Mesh) -> None:
    """A provider that only said that it began is forgotten: one response is created, by the target that answers."""
    seen = events(await mesh.ask(model="failing", stream=True))
    assert [event["type"] for event in seen].count("response.created") == 1
    assert seen[0]["response"]["id"] != "resp_lost"
    assert text_of(seen[-1]["response"]) == "Hello"
    assert seen[-1]["response"]["usage"]["weir"]["attempts"] == 2


async def test_a_broken_stream_ends_in_an_error_event(mesh: Mesh) -> None:
    """Never in a completed response, and no other target goes on with it; unary, it is an error."""
    mesh.local.script = [Piece(text="Hel"), UpstreamTruncated("cut")]
    seen = events(await mesh.ask(model="local", stream=True))
    assert seen[-1]["type"] == "error"
    assert seen[-1]["code"] == seen[-1]["error"]["code"] == "upstream_truncated"
    assert "response.completed" not in {event["type"] for event in seen}
    with pytest.raises(UpstreamTruncated):
        await mesh.ask(model="local")
    assert [entry.outcome for entry in mesh.router.log.ended] == [Outcome.CUT, Outcome.CUT]


@pytest.mark.parametrize(
    ("metadata", "fields", "kind", "param"),
    [
        ((), {}, KeyMissing, None),
        (BEARER, {"model": "gpt-9"}, ModelNotFound, "model"),
        (BEARER, {"input": []}, InvalidRequest, "input"),
        (BEARER, {"max_output_tokens": 0}, InvalidRequest, "max_output_tokens"),
        (BEARER, {"input": "x" * 20_000}, BodyTooLarge, None),
    ],
)
async def test_refusals_reach_no_target(
    mesh: Mesh, metadata: Any, fields: dict[str, Any], kind: type[WeirError], param: str | None
) -> None:
    """A refused request is an error with its reason and field."""
    with pytest.raises(kind) as caught:
        await mesh.ask(metadata, **fields)
    assert caught.value.param == param
    assert mesh.router.log.begun == []
