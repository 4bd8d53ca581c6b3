"""The adapter of embedding models against a KServe v2 server over real gRPC."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest

from dialects import chat_request
from dialects.embedding_request import read
from dialects.request import Request
from gen.weir.router.v1 import Task
from gen.weir.type.v1 import Usage
from meshkit.channel import open_channel
from meshkit.errors import (
    ContextTooLong,
    RateLimited,
    UnsupportedParameter,
    UpstreamError,
    UpstreamTimeout,
    WeirError,
)
from services.router.adapters.triton_embed import TritonEmbedTarget
from services.router.ports import Piece
from tests.fakes.router import LIMITS, spec
from tests.fakes.triton import FakeTriton


@asynccontextmanager
async def target(fake: FakeTriton, total_s: float = 5.0) -> AsyncIterator[TritonEmbedTarget]:
    """The adapter, connected; three texts a batch."""
    channel = open_channel(fake.address)
    limits = replace(LIMITS, total=timedelta(seconds=total_s))
    embed = replace(spec("local-embed", local=True, task=Task.EMBED), limits=limits)
    yield TritonEmbedTarget(embed, channel, timedelta(seconds=0.05), max_batch=3)
    await channel.close()


def ask(texts: Sequence[str] | Sequence[int], **fields: Any) -> Request:
    """A request for embeddings."""
    return read(json.dumps({"model": "local-embed", "input": texts, **fields}).encode())


async def only_piece(fake: FakeTriton, request: Request) -> Piece:
    """The one piece of an answer."""
    async with (
        target(fake) as local,
        aclosing(local.generate(request, "req_1", stream=False)) as answer,
    ):
        (piece,) = [piece async for piece in answer]
        return piece


async def test_texts_become_one_piece() -> None:
    """The piece is whole and carries OpenAI's list, and the tokens that the model counted."""
    async with FakeTriton() as fake:
        piece = await only_piece(fake, ask(["a", "bb"]))
    assert piece.finished
    assert piece.content
    assert piece.usage == Usage(input_tokens=3)
    (body,) = piece.bodies
    assert json.loads(body) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1.0, 1.0]},
            {"object": "embedding", "index": 1, "embedding": [2.0, 1.0]},
        ],
        "model": "local-embed-model",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


async def test_request_speaks_the_contract() -> None:
    """One STRING tensor [n, 1], UTF-8."""
    async with FakeTriton() as fake:
        await only_piece(fake, ask(["ü"]))
        (request,) = fake.requests
        assert (request.model_name, request.id) == ("local-embed-model", "req_1")
        (tensor,) = request.inputs
        assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("text", "BYTES", [1, 1])
        assert fake.input("text") == b"\x02\x00\x00\x00\xc3\xbc"


async def test_many_texts_go_in_batches() -> None:
    """No call has more texts than a batch; the vectors stay in the order of the texts."""
    texts = ["x" * size for size in range(1, 9)]
    async with FakeTriton() as fake:
        piece = await only_piece(fake, ask(texts))
        assert [list(request.inputs[0].shape) for request in fake.requests] == [[3, 1], [3, 1], [2, 1]]
    data = json.loads(piece.bodies[0])["data"]
    assert [one["embedding"] for one in data] == [
        [float(size), float((size + 2) // 3)] for size in range(1, 9)
    ]
    assert piece.usage == Usage(input_tokens=36)


async def test_base64_is_exact() -> None:
    """Little-endian float32, as the client's decoder expects it."""
    async with FakeTriton() as fake:
        piece = await only_piece(fake, ask(["abc"], encoding_format="base64"))
    (one,) = json.loads(piece.bodies[0])["data"]
    assert base64.b64decode(one["embedding"]) == struct.pack("<2f", 3, 1)


@pytest.mark.parametrize(
    ("code", "text", "kind", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", RateLimited, {"saturated": "true"}),
        (grpc.StatusCode.UNAVAILABLE, "Request timeout expired", RateLimited, {"saturated": "true"}),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x'", UpstreamError, {"down": "true"}),
        (grpc.StatusCode.INTERNAL, "Stub process 'x' is not healthy.", UpstreamError, {"down": "true"}),
        (grpc.StatusCode.INVALID_ARGUMENT, "Text length (300) exceeds maximum input length (256).",
         ContextTooLong, {}),
        (grpc.StatusCode.INVALID_ARGUMENT, "unexpected inference input 'text'", UpstreamError, {}),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", UpstreamError, {}),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", UpstreamTimeout, {}),
    ],
)  # fmt: skip
async def test_statuses(
    code: grpc.StatusCode, text: str, kind: type[WeirError], details: dict[str, str]
) -> None:
    """A unary call's error is its status; Triton's own words decide before its code."""
    async with FakeTriton(embed_error=(code, text)) as fake:
        with pytest.raises(kind) as raised:
            await only_piece(fake, ask(["a"]))
    assert type(raised.value) is kind
    assert raised.value.details == details


async def test_refused_connection_was_not_sent() -> None:
    """A server that is not there fails the attempt at once."""
    async with FakeTriton() as fake:
        address = fake.address
    with pytest.raises(UpstreamError) as raised:
        await only_piece(FakeTriton(address=address), ask(["a"]))
    assert raised.value.details == {"sent": "false"}


async def test_malformed_answer_is_an_upstream_error() -> None:
    """Fewer counts than texts: nothing of it is used."""
    async with FakeTriton(broken=True) as fake:
        with pytest.raises(UpstreamError):
            await only_piece(fake, ask(["a", "b"]))


async def test_total_limit_ends_it() -> None:
    """However many batches there are, they share the target's total limit; the running one is cancelled."""
    async with FakeTriton(embed_hangs=True) as fake, target(fake, total_s=0.2) as local:
        with pytest.raises(UpstreamTimeout):
            async with aclosing(local.generate(ask(["a"]), "req_1", stream=False)) as answer:
                await anext(answer)
        async with asyncio.timeout(1):
            await fake.cancelled.wait()


async def test_leaving_cancels_upstream() -> None:
    """Triton is told within a second that nobody waits any more."""
    async with FakeTriton(embed_hangs=True) as fake, target(fake) as local:
        waiting = asyncio.ensure_future(anext(local.generate(ask(["a"]), "req_1", stream=False)))
        async with asyncio.timeout(1):
            while not fake.requests:  # noqa: ASYNC110 - plain state of the server
                await asyncio.sleep(0.01)
        waiting.cancel()
        async with asyncio.timeout(1):
            await fake.cancelled.wait()


@pytest.mark.parametrize(
    "request_", [ask([1, 2]), chat_request.read(b'{"messages": [{"role": "user", "content": "hi"}]}')]
)
async def test_only_texts_are_embedded(request_: Request) -> None:
    """Token numbers and conversations are refused and not sent."""
    async with FakeTriton() as fake:
        with pytest.raises(UnsupportedParameter):
            await only_piece(fake, request_)
        assert not fake.requests


async def test_readiness_is_followed() -> None:
    """As for a generating model: ready is up, a dead stub is down at once."""
    async with (
        FakeTriton(embed_error=(grpc.StatusCode.INTERNAL, "is not healthy")) as fake,
        target(fake) as local,
    ):
        assert not local.is_up()
        await local.probe()
        assert local.is_up()
        with pytest.raises(UpstreamError):
            await anext(local.generate(ask(["a"]), "req_1", stream=False))
        assert not local.is_up()
