"""OpenAI's older completions over real gRPC, on scripted targets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai.types import Completion

from dialects.request import Endpoint
from gen.google.api import HttpBody
from gen.weir.ledger.v1 import Outcome
from gen.weir.router.v1 import OnCut, Task
from gen.weir.type.v1 import FinishReason, Usage
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
from services.router.domain.target import ModelSpec
from services.router.ports import Piece
from tests.fakes.router import FakeTarget, spec
from tests.harness.scripted_router import BEARER, Clients, ScriptedRouter, events, parts_of, running

LOCAL = [
    Piece(text="upon ", usage=Usage(input_tokens=1, output_tokens=1)),
    Piece(text="a time"),
    Piece(finished=True, finish_reason=FinishReason.LENGTH, usage=Usage(input_tokens=1, output_tokens=3)),
]
CLOUD = [
    Piece(
        bodies=[b'{"id":"cmpl-p","choices":[{"index":0,"text":"there","finish_reason":null}]}'], text="there"
    ),
    Piece(
        bodies=[b'{"id":"cmpl-p","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'],
        usage=Usage(input_tokens=1, output_tokens=1),
        finish_reason=FinishReason.STOP,
        finished=True,
    ),
]


class Mesh:
    """A running router with one local and one cloud target."""

    def __init__(self) -> None:
        self.local = FakeTarget(spec("local", local=True, on_cut=OnCut.CONTINUE), LOCAL)
        self.cloud = FakeTarget(spec("cloud", local=False), CLOUD)
        self.router = ScriptedRouter(
            (self.local, self.cloud, FakeTarget(spec("embed", local=True, task=Task.EMBED), [])),
            (
                ModelSpec("both", ("local", "cloud"), auto=False),
                ModelSpec("local", ("local",), auto=False),
                ModelSpec("cloud", ("cloud",), auto=False),
                ModelSpec("auto", ("cloud", "local"), auto=True),
                ModelSpec("embed", ("embed",), auto=False, task=Task.EMBED),
            ),
        )
        self.clients: Clients

    async def complete(self, metadata: Any = BEARER, **fields: Any) -> list[HttpBody]:
        """The parts of an answer to `Once`, or to another prompt."""
        data = json.dumps({"prompt": "Once", **fields}).encode()
        return await parts_of(self.clients.openai.completions(HttpBody(data=data), metadata=metadata))


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """A running router."""
    made = Mesh()
    async with running(made.router, tmp_path) as made.clients:
        yield made


async def test_local_answer(mesh: Mesh) -> None:
    """One `text_completion` that OpenAI's own model accepts; the target got the bare prompt."""
    (part,) = await mesh.complete(max_tokens=3)
    assert part.content_type == "application/json"
    Completion.model_validate_json(part.data, strict=True)
    answer = json.loads(part.data)
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [
        {"text": "upon a time", "index": 0, "logprobs": None, "finish_reason": "length"}
    ]
    assert answer["provider"] == "local"
    assert answer["usage"] == {
        "prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4,
        "weir": {"cost_nano_usd": None, "target": "local", "attempts": 1},
    }  # fmt: skip
    (asked,) = mesh.local.asked
    assert (asked.endpoint, asked.prompt, asked.max_output_tokens) == (Endpoint.COMPLETIONS, "Once", 3)


async def test_streamed_local_answer(mesh: Mesh) -> None:
    """Text as it comes, the finish reason, usage where asked for, `[DONE]`."""
    seen = events(await mesh.complete(stream=True, stream_options={"include_usage": True}))
    assert [event["choices"][0]["text"] for event in seen[:-2]] == ["upon ", "a time", ""]
    assert [event["choices"][0]["finish_reason"] for event in seen[:-2]] == [None, None, "length"]
    assert (seen[-2]["choices"], seen[-2]["usage"]["total_tokens"], seen[-1]) == ([], 4, None)
    assert len({event["id"] for event in seen[:-1]}) == 1
    plain = events(await mesh.complete(stream=True))
    assert (len(plain), plain[-1]) == (len(seen) - 1, None)


async def test_a_providers_answer_is_its_own(mesh: Mesh) -> None:
    """Its chunks pass with `provider` in front; what the answer cost is in its usage."""
    parts = await mesh.complete(model="cloud", stream=True, stream_options={"include_usage": True})
    assert parts[0].data == (
        b'data: {"provider":"cloud","id":"cmpl-p","choices":[{"index":0,"text":"there","finish_reason":null}]}\n\n'
    )
    usage, done = events(parts)[-2:]
    assert usage["usage"] == {
        "prompt_tokens": 1, "completion_tokens": 1,
        "weir": {"cost_nano_usd": None, "target": "cloud", "attempts": 1},
    }  # fmt: skip
    assert done is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "the end"}, "suffix"),
        ({"echo": True}, "echo"),
        ({"n": 2}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 0}, "logprobs"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": ""}, "prompt"),
    ],
)
async def test_what_a_local_model_cannot_goes_to_a_provider(
    mesh: Mesh, fields: dict[str, Any], param: str
) -> None:
    """A need takes the local target out; where no other is left the parameter is named, and nobody is asked."""
    await mesh.complete(model="both", **fields)
    assert (len(mesh.cloud.asked), mesh.local.asked) == (1, [])
    with pytest.raises(UnsupportedParameter) as caught:
        await mesh.complete(model="local", **fields)
    assert caught.value.param == param
    assert mesh.local.asked == []


async def test_the_next_target_answers_where_the_first_fails(mesh: Mesh) -> None:
    """Also by a model that the body names as a fallback."""
    mesh.local.script = [UpstreamError("refused")]
    parts = await mesh.complete(model="local", fallbacks=["cloud"], stream=True)
    assert parts[0].data.startswith(b'data: {"provider":"cloud"')
    assert [entry.outcome for entry in mesh.router.log.ended] == [Outcome.FAILED, Outcome.OK]


async def test_a_cut_stream_ends_in_an_error_event(mesh: Mesh) -> None:
    """A bare text is not continued by another model: neither a finish reason nor `[DONE]` follows the error."""
    mesh.local.script = [LOCAL[0], UpstreamTruncated("cut")]
    seen = events(await mesh.complete(model="both", stream=True))
    assert [event["choices"][0]["finish_reason"] for event in seen[:-1]] == [None]
    assert seen[-1]["error"]["code"] == "upstream_truncated"
    assert mesh.cloud.asked == []


async def test_headers_name_the_target(mesh: Mesh) -> None:
    """They come before the first byte."""
    headers = await mesh.clients.headers("unary_stream", "Completions", b'{"prompt":"Once","model":"auto"}')
    assert (headers["x-request-id"], headers["x-weir-target"], headers["x-weir-attempts"]) == (
        "mine-1",
        "cloud",
        "1",
    )


@pytest.mark.parametrize(
    ("fields", "metadata", "kind", "param"),
    [
        ({"model": "gpt-9"}, BEARER, ModelNotFound, "model"),
        ({"model": "embed"}, BEARER, InvalidRequest, "model"),
        ({"prompt": None}, BEARER, InvalidRequest, "prompt"),
        ({"fallbacks": ["gpt-9"]}, BEARER, ModelNotFound, "fallbacks[0]"),
        ({}, (), KeyMissing, None),
        ({"pad": "x" * 10_000}, BEARER, BodyTooLarge, None),
    ],
)
async def test_refusals_reach_no_target(
    mesh: Mesh, fields: dict[str, Any], metadata: Any, kind: type[WeirError], param: str | None
) -> None:
    """A refused request is an error with its reason and field, and no target is asked."""
    with pytest.raises(kind) as caught:
        await mesh.complete(metadata, **fields)
    assert caught.value.param == param
    assert (mesh.local.asked, mesh.cloud.asked, mesh.router.log.begun) == ([], [], [])


async def test_a_reservation_counts_every_answer_that_is_made(mesh: Mesh) -> None:
    """Two prompts, the best of three each: six answers of five tokens."""
    await mesh.complete(model="cloud", prompt=["a", "b"], n=1, best_of=3, max_tokens=5)
    (begun,) = mesh.router.log.begun
    assert begun.usage is not None
    assert begun.usage.output_tokens == 30
