"""The Triton adapter against a KServe v2 server over real gRPC."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from dialects.chat_request import ChatRequest, read
from gen.weir.type.v1 import FinishReason, Usage
from meshkit.channel import open_channel
from meshkit.errors import ContextTooLong, RateLimited, UpstreamError, WeirError
from services.router.adapters.triton import TritonTarget
from services.router.ports import Piece
from tests.fakes.router import spec
from tests.fakes.triton import FakeTriton, Say

HI = [Say("Hel", 1, input_tokens=9), Say("lo", 2, input_tokens=9), Say(final=True)]


@asynccontextmanager
async def target(fake: FakeTriton) -> AsyncIterator[TritonTarget]:
    """The adapter, connected."""
    channel = open_channel(fake.address)
    yield TritonTarget(spec("local", local=True), channel, "chatml", timedelta(seconds=0.05))
    await channel.close()


def ask(**fields: Any) -> ChatRequest:
    """A chat request."""
    return read(json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode())


async def pieces(fake: FakeTriton, request: ChatRequest) -> list[Piece]:
    """Every piece of one answer."""
    async with target(fake) as local, aclosing(local.generate(request, "req_1", stream=True)) as answer:
        return [piece async for piece in answer]


async def test_answer_is_read() -> None:
    """Text comes as it arrives; output tokens add up, input tokens count once; the final marker ends it."""
    async with FakeTriton(HI) as fake:
        read_pieces = await pieces(fake, ask())
    assert [piece.text for piece in read_pieces] == ["Hel", "lo", ""]
    assert [piece.finished for piece in read_pieces] == [False, False, True]
    assert read_pieces[-1].usage == Usage(input_tokens=9, output_tokens=3)
    assert read_pieces[-1].finish_reason == FinishReason.STOP


async def test_request_speaks_the_contract() -> None:
    """The prompt is templated, the cap and the flags are sent, and nothing that was not asked for."""
    async with FakeTriton(HI) as fake:
        await pieces(fake, ask())
        prompt = b"<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        assert fake.input("text_input") == struct.pack("<I", len(prompt)) + prompt
        assert fake.input("max_tokens") == struct.pack("<i", 64)
        assert fake.input("exclude_input_in_output") == b"\x01"
        assert fake.requests[0].model_name == "local-model"
        assert fake.requests[0].id == "req_1"
        for name in ("temperature", "top_p", "top_k", "seed", "stop_words"):
            assert fake.input(name) is None


async def test_sampling_is_sent() -> None:
    """Every sampling parameter arrives in the type that the contract names."""
    async with FakeTriton(HI) as fake:
        await pieces(fake, ask(max_tokens=5, temperature=0.5, seed=-1, stop=["a", "bc"]))
        assert fake.input("max_tokens") == struct.pack("<i", 5)
        assert fake.input("temperature") == struct.pack("<f", 0.5)
        assert fake.input("top_p") == struct.pack("<f", 1.0)
        assert fake.input("seed") == b"\xff" * 8
        assert fake.input("stop_words") == b"\x01\x00\x00\x00a\x02\x00\x00\x00bc"
        await pieces(fake, ask(temperature=0))
        assert fake.input("top_k") == struct.pack("<i", 1)


async def test_cap_reached_means_length() -> None:
    """The contract names no finish reason: as many tokens as the cap means that the cap ended it."""
    async with FakeTriton(HI) as fake:
        assert (await pieces(fake, ask(max_tokens=3)))[-1].finish_reason == FinishReason.LENGTH


async def test_stop_text_is_cut() -> None:
    """The backend leaves the stop text in; the client never sees it."""
    async with FakeTriton([Say("one EN", 2, input_tokens=1), Say("D two", 2), Say(final=True)]) as fake:
        answer = await pieces(fake, ask(stop="END", max_tokens=4))
    assert "".join(piece.text for piece in answer) == "one "
    assert answer[-1].finish_reason == FinishReason.STOP


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Exceeds maximum queue size", RateLimited),
        ("Request timeout expired", RateLimited),
        ("Request for unknown model: 'x' is not found", UpstreamError),
        ("Stub process 'x' is not healthy.", UpstreamError),
        ("anything else", UpstreamError),
        ("[request id: x] Prompt length (3000) exceeds maximum input length (2048).", ContextTooLong),
    ],
)
async def test_in_band_errors(text: str, kind: type[WeirError]) -> None:
    """Triton reports errors as text without a code; the text decides."""
    async with FakeTriton([Say(error=text)]) as fake:
        with pytest.raises(kind):
            await pieces(fake, ask())


async def test_refused_connection_is_an_upstream_error() -> None:
    """A server that is not there fails the attempt at once."""
    async with FakeTriton(HI) as fake:
        address = fake.address
    gone = FakeTriton(HI, address=address)
    with pytest.raises(UpstreamError):
        await pieces(gone, ask())


async def test_closing_the_answer_cancels_upstream() -> None:
    """The model stops within a second when nobody reads any more."""
    async with FakeTriton([HI[0], Say(hang=True)]) as fake, target(fake) as local:
        async with aclosing(local.generate(ask(), "req_1", stream=True)) as answer:
            await anext(answer)
        async with asyncio.timeout(1):
            await fake.cancelled.wait()


async def test_readiness_is_followed() -> None:
    """A target is up while its model is ready, and down soon after it is not; a dead stub's text counts at once."""
    async with FakeTriton([Say(error="Stub process is not healthy")]) as fake, target(fake) as local:
        watch = asyncio.create_task(local.watch())
        async with asyncio.timeout(2):
            while not local.is_up():  # noqa: ASYNC110 - plain state of another task
                await asyncio.sleep(0.01)
        with pytest.raises(UpstreamError):
            async with aclosing(local.generate(ask(), "req_1", stream=True)) as answer:
                await anext(answer)
        assert not local.is_up()
        watch.cancel()
