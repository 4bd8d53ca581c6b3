"""Embeddings over real gRPC, on scripted targets: OpenAI's face and the typed one."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse

from dialects import embedding_request
from dialects.embedding_answer import render
from dialects.request import Endpoint, Request
from gen.google.api import HttpBody
from gen.weir.cloud.v1 import EmbedRequest as ProviderEmbedRequest
from gen.weir.cloud.v1 import EmbedResponse
from gen.weir.cloud.v1.service import CloudAdapterClient, CloudAdapterServicer
from gen.weir.ledger.v1 import Outcome
from gen.weir.router.v1 import EmbedRequest, RouteOptions, Task
from gen.weir.type.v1 import Usage
from meshkit.errors import (
    BodyTooLarge,
    InvalidRequest,
    KeyMissing,
    ModelNotFound,
    UnsupportedParameter,
    UpstreamError,
    WeirError,
)
from meshkit.inprocess import InProcessTransport
from meshkit.telemetry import Logger
from pricing.cost import Rates
from pricing.price_list import Price, PriceList, Side
from services.router.adapters.cloud import CloudTarget
from services.router.domain.target import ModelSpec
from services.router.ports import Piece
from tests.fakes.router import FakeTarget, spec
from tests.harness.scripted_router import BEARER, Clients, ScriptedRouter, running

USAGE = Usage(input_tokens=7)
VECTORS = [[0.5, -1.0], [0.25, 2.0]]
PACKED = [struct.pack("<2f", *vector) for vector in VECTORS]
OWN = {encoding: render(PACKED, "minilm", USAGE, encoding) for encoding in ("float", "base64")}
"""What a target sends, in either encoding."""


def answered(body: bytes) -> list[Any]:
    """A target's script: one whole answer."""
    return [Piece(bodies=[body], usage=USAGE, content=True, finished=True)]


class Mesh:
    """A running router with one local and one cloud target for embeddings."""

    def __init__(self) -> None:
        self.local = FakeTarget(spec("local", local=True, task=Task.EMBED), answered(OWN["float"]))
        self.cloud = FakeTarget(spec("cloud", local=False, task=Task.EMBED), answered(OWN["float"]))
        self.router = ScriptedRouter(
            (self.local, self.cloud, FakeTarget(spec("chat", local=True), [])),
            (
                ModelSpec("chat", ("chat",), auto=False),
                ModelSpec("embed", ("local", "cloud"), auto=False, task=Task.EMBED),
                ModelSpec("local-embed", ("local",), auto=False, task=Task.EMBED),
                ModelSpec("cloud-embed", ("cloud",), auto=False, task=Task.EMBED),
            ),
            prices=PriceList([
                Price("p1", Side.CLOUD, "openai", "*", date(2020, 1, 1), "test", Rates(2_000_000, 0, 0)),
                Price("p1", Side.LOCAL, "triton", "*", date(2020, 1, 1), "test", Rates(0, 0, 0)),
            ]),
        )  # fmt: skip
        self.clients: Clients

    async def embeddings(self, metadata: Any = BEARER, **fields: Any) -> HttpBody:
        """OpenAI's answer."""
        data = json.dumps({"model": "embed", "input": ["a", "b"], **fields}).encode()
        return await self.clients.openai.embeddings(HttpBody(data=data), metadata=metadata)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """A running router."""
    made = Mesh()
    async with running(made.router, tmp_path) as made.clients:
        yield made


@pytest.mark.parametrize("target", ["local", "cloud"])
async def test_answer(mesh: Mesh, target: str) -> None:
    """The target's list, which OpenAI's own model accepts, with `provider` in front and its cost in the usage."""
    part = await mesh.embeddings(model=f"{target}-embed")
    assert part.content_type == "application/json"
    assert part.data.startswith(b'{"provider":"%s","object":"list"' % target.encode())
    answer = CreateEmbeddingResponse.model_validate_json(part.data, strict=True)
    assert [one.embedding for one in answer.data] == VECTORS
    cost = 0 if target == "local" else 14
    assert json.loads(part.data)["usage"] == {
        "prompt_tokens": 7, "total_tokens": 7,
        "weir": {"cost_nano_usd": cost, "target": target, "attempts": 1},
    }  # fmt: skip


async def test_a_target_gets_the_texts_and_the_encoding(mesh: Mesh) -> None:
    """A local target is told how the client wants its vectors; a provider gets the client's own JSON."""
    await mesh.embeddings(encoding_format="base64", user="u")
    (asked,) = mesh.local.asked
    assert (asked.endpoint, asked.inputs, asked.encoding) == (Endpoint.EMBEDDINGS, ("a", "b"), "base64")
    assert json.loads(asked.body("minilm", stream=False)) == {
        "model": "minilm", "input": ["a", "b"], "encoding_format": "base64", "user": "u",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "param"), [({"dimensions": 2}, "dimensions"), ({"input": [[1], [2]]}, "input")]
)
async def test_what_a_local_model_cannot_goes_to_a_provider(
    mesh: Mesh, fields: dict[str, Any], param: str
) -> None:
    """A need takes the local target out; where no other is left the parameter is named."""
    await mesh.embeddings(**fields)
    assert (len(mesh.cloud.asked), mesh.local.asked) == (1, [])
    with pytest.raises(UnsupportedParameter) as caught:
        await mesh.embeddings(model="local-embed", **fields)
    assert caught.value.param == param


async def test_the_next_target_answers_where_the_first_fails(mesh: Mesh) -> None:
    """The answer tells how many attempts there were, and what all of them cost."""
    mesh.local.script = [UpstreamError("gone")]
    part = await mesh.embeddings()
    assert json.loads(part.data)["usage"]["weir"] == {
        "cost_nano_usd": 14, "target": "cloud", "attempts": 2,
    }  # fmt: skip
    assert [entry.outcome for entry in mesh.router.log.ended] == [Outcome.FAILED, Outcome.OK]


async def test_no_output_is_reserved(mesh: Mesh) -> None:
    """Vectors are no tokens: only the input counts, before as after."""
    await mesh.embeddings(input=["text of sixteen!", "text of sixteen!"])
    (begun,), (ended,) = mesh.router.log.begun, mesh.router.log.ended
    assert begun.usage == Usage(input_tokens=8, estimated=True)
    assert ended.usage == USAGE


async def test_headers_name_the_target(mesh: Mesh) -> None:
    """As with every other answer."""
    headers = await mesh.clients.headers("unary_unary", "Embeddings", b'{"model":"embed","input":"a"}')
    assert (headers["x-request-id"], headers["x-weir-target"]) == ("mine-1", "local")
    assert (headers["x-weir-attempts"], headers["x-weir-route-reason"]) == ("1", "model embed")


@pytest.mark.parametrize(
    ("fields", "metadata", "kind", "param"),
    [
        ({"model": "gpt-9"}, BEARER, ModelNotFound, "model"),
        ({"model": "chat"}, BEARER, InvalidRequest, "model"),
        ({"model": None}, BEARER, InvalidRequest, "model"),
        ({"input": ["a", ""]}, BEARER, InvalidRequest, "input[1]"),
        ({"encoding_format": "int8"}, BEARER, InvalidRequest, "encoding_format"),
        ({}, (), KeyMissing, None),
        ({"pad": "x" * 10_000}, BEARER, BodyTooLarge, None),
    ],
)
async def test_refusals_reach_no_target(
    mesh: Mesh, fields: dict[str, Any], metadata: Any, kind: type[WeirError], param: str | None
) -> None:
    """A refused request is an error with its reason and field, and no target is asked."""
    with pytest.raises(kind) as caught:
        await mesh.embeddings(metadata, **fields)
    assert caught.value.param == param
    assert (mesh.local.asked, mesh.cloud.asked, mesh.router.log.begun) == ([], [], [])


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_typed_answer(mesh: Mesh, encoding: str) -> None:
    """Vectors in the inputs' order from either encoding, usage, target, reason, attempts, cost."""
    mesh.local.script = [UpstreamError("gone")]
    mesh.cloud.script = answered(OWN[encoding])
    answer = await mesh.clients.typed.embed(EmbedRequest(model="embed", inputs=["a", "b"]), metadata=BEARER)
    assert [one.values for one in answer.embeddings] == VECTORS
    assert answer.target is not None
    assert (answer.usage, answer.target.name, answer.attempts) == (USAGE, "cloud", 2)
    assert answer.cost_nano_usd == 14
    assert answer.route_reason == "model embed; local failed: UPSTREAM_ERROR"
    (asked,) = mesh.cloud.asked
    assert json.loads(asked.body("e", stream=False)) == {
        "model": "e", "input": ["a", "b"], "encoding_format": "base64",
    }  # fmt: skip


async def test_typed_wishes_for_the_route(mesh: Mesh) -> None:
    """Targets and fallbacks of the request are obeyed, and checked like any other."""
    chosen = RouteOptions(targets=["cloud"])
    answer = await mesh.clients.typed.embed(
        EmbedRequest(model="embed", inputs=["a", "b"], route=chosen), metadata=BEARER
    )
    assert answer.target is not None
    assert (answer.target.name, mesh.local.asked) == ("cloud", [])
    mesh.local.script = [UpstreamError("gone")]
    fallback = RouteOptions(fallbacks=["cloud-embed"])
    answer = await mesh.clients.typed.embed(
        EmbedRequest(model="local-embed", inputs=["a", "b"], route=fallback), metadata=BEARER
    )
    assert answer.target is not None
    assert answer.target.name == "cloud"
    with pytest.raises(WeirError) as caught:
        await mesh.clients.typed.embed(
            EmbedRequest(model="embed", inputs=["a"], route=RouteOptions(fallbacks=["gpt-9"])),
            metadata=BEARER,
        )
    assert (type(caught.value), caught.value.param) == (ModelNotFound, "route.fallbacks[0]")


@pytest.mark.parametrize("body", [b'{"data":[]}', b"{}", OWN["float"].replace(b"0.5", b"null")])
async def test_rubbish_is_no_typed_answer(mesh: Mesh, body: bytes) -> None:
    """A caller of the typed contract gets vectors, one for each input, or an error."""
    mesh.local.script = mesh.cloud.script = answered(body)
    with pytest.raises(UpstreamError):
        await mesh.clients.typed.embed(EmbedRequest(model="embed", inputs=["a", "b"]), metadata=BEARER)


@pytest.mark.parametrize(
    ("request_", "kind", "param"),
    [
        (EmbedRequest(inputs=["a"]), InvalidRequest, "model"),
        (EmbedRequest(model="embed", inputs=["a", ""]), InvalidRequest, "inputs[1]"),
        (EmbedRequest(model="chat", inputs=["a"]), InvalidRequest, "model"),
        (EmbedRequest(model="local-embed", inputs=["a"], dimensions=8), UnsupportedParameter, "dimensions"),
    ],
)
async def test_typed_refusals_reach_no_target(
    mesh: Mesh, request_: EmbedRequest, kind: type[WeirError], param: str
) -> None:
    """Under the contract's own names."""
    with pytest.raises(kind) as caught:
        await mesh.clients.typed.embed(request_, metadata=BEARER)
    assert caught.value.param == param
    assert (mesh.local.asked, mesh.cloud.asked) == ([], [])


class ScriptedAdapter(CloudAdapterServicer):
    """Answers every call for embeddings alike."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.asked: list[ProviderEmbedRequest] = []

    async def generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        raise NotImplementedError
        yield

    async def embed(self, request: ProviderEmbedRequest, context: Any) -> EmbedResponse:
        self.asked.append(request)
        return EmbedResponse(body=self.body, usage=USAGE, model="text-embedding")

    async def list_providers(self, request: Any, context: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("asked", "inputs"),
    [
        (embedding_request.read(b'{"model":"m","input":["a","b"]}'), ["a", "b"]),
        (embedding_request.read(b'{"model":"m","input":[[1,2],[3]]}'), [[1, 2], [3]]),
    ],
)
async def test_a_provider_is_asked_and_its_vectors_are_counted(asked: Request, inputs: list[Any]) -> None:
    """What is short of a vector is a failure of the target, before the client has a byte: another one may answer."""
    adapter = ScriptedAdapter(OWN["float"])
    client = CloudAdapterClient(InProcessTransport(adapter, Logger("test")))
    target = CloudTarget(spec("cloud", local=False, task=Task.EMBED), client)
    (piece,) = [piece async for piece in target.generate(asked, "mine-1", stream=False)]
    assert (piece.bodies, piece.usage, piece.finished) == ([OWN["float"]], USAGE, True)
    (call,) = adapter.asked
    assert json.loads(call.body) == {"model": "cloud-model", "input": inputs}
    adapter.body = render(PACKED[:1], "minilm", USAGE, "float")
    with pytest.raises(UpstreamError):
        [piece async for piece in target.generate(asked, "mine-1", stream=False)]
