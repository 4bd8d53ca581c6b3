"""The router's adapter in front of a real Triton that is dead, full or late, and what a generating model can be asked.

The server has one slot, one place in its queue, and lets nobody wait there for longer than a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from dialects import chat_request, completion_request
from dialects.request import Request
from gen.weir.type.v1 import FinishReason, Target
from meshkit.channel import open_channel
from meshkit.errors import ContextTooLong, RateLimited, UnsupportedParameter, UpstreamError
from services.router.adapters.triton import TritonTarget
from services.router.domain.target import Capabilities, Limits, TargetSpec
from services.router.ports import Piece
from tests.mesh.triton_fixture import RunningTriton, running_triton
from weirctl.triton_probe import Health, TritonProbe

pytestmark = pytest.mark.xdist_group("triton")

SCHEMA = {
    "type": "object",
    "properties": {"river": {"type": "string", "maxLength": 12}, "km": {"type": "integer"}},
    "required": ["river", "km"],
    "additionalProperties": False,
}
_LIST = {"type": "array", "items": {"type": "integer"}, "minItems": 1_000}
ENDLESS = {"type": "json_schema", "json_schema": {"name": "x", "schema": _LIST}}
_LONG_S = 60
_QUEUE_S = 1
_SILENT_S = 2
_CONTEXT = 512


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    with running_triton(
        tmp_path_factory.mktemp("weir"),
        slots=1,
        queue_requests=1,
        queue_s=_QUEUE_S,
        context_tokens=_CONTEXT,
        embedding=False,
    ) as running:
        yield running


@pytest.fixture
async def local(triton: RunningTriton) -> AsyncIterator[TritonTarget]:
    """The router's adapter, probed."""
    limit = timedelta(seconds=_LONG_S)
    spec = TargetSpec(
        target=Target(name="local", model="smollm2"),
        limits=Limits(limit, limit, limit, limit),
        capabilities=Capabilities(frozenset({"json_schema"}), context_window=_CONTEXT, prefill="plain"),
        default_max_output_tokens=16,
    )
    async with open_channel(f"127.0.0.1:{triton.settings.grpc_port}") as channel:
        target = TritonTarget(spec, channel, "smollm2", timedelta(seconds=5))
        await target.probe()
        yield target


def ask(content: str = "Tell me a long story about a river.", **fields: Any) -> Request:
    """A conversation of one message."""
    return chat_request.read(
        json.dumps({"messages": [{"role": "user", "content": content}], **fields}).encode()
    )


async def pieces_of(local: TritonTarget, request: Request, prefill: str = "") -> list[Piece]:
    """The whole answer."""
    async with aclosing(local.generate(request, "req_1", stream=True, prefill=prefill)) as answer:
        return [piece async for piece in answer]


async def text_of(local: TritonTarget, request: Request, prefill: str = "") -> str:
    """The whole answer's text."""
    return "".join(piece.text for piece in await pieces_of(local, request, prefill))


async def dead(local: TritonTarget) -> UpstreamError:
    """The error of a request once Triton knows that its model's process is gone.

    Until then requests may wait in the queue for an answer that will not come, and time out there.
    """
    async with asyncio.timeout(_LONG_S):
        while True:
            try:
                await pieces_of(local, ask())
            except RateLimited:
                continue
            except UpstreamError as error:
                return error
            else:
                raise AssertionError("a dead model answered")


async def endless(local: TritonTarget) -> AsyncGenerator[Piece, None]:
    """An answer under way that keeps the slot for hundreds of tokens: it has its first one, and may not end."""
    answer = local.generate(ask(max_tokens=400, response_format=ENDLESS), "req_1", stream=True)
    async for piece in answer:
        if piece.text:
            return answer
    raise AssertionError("no token")


async def first_token_s(local: TritonTarget) -> float:
    """Seconds from the request to its first token."""
    begun = time.monotonic()
    async with aclosing(local.generate(ask("Hi", max_tokens=1), "req_1", stream=True)) as answer:
        await anext(answer)
    return time.monotonic() - begun


async def freed_within_s(local: TritonTarget) -> float:
    """A second, and what the next answer's own first token takes: more on a busy machine, so thrice that."""
    return 1.0 + 3 * await first_token_s(local)


async def test_dead_model(triton: RunningTriton, local: TritonTarget) -> None:
    """Fault 17: health says 200, the error's text does not; the target is down at once, and back when it is mended."""
    assert local.is_up()
    os.kill(triton.stub_pid(), signal.SIGKILL)
    assert (await dead(local)).details == {"down": "true"}
    assert not local.is_up()
    async with TritonProbe(triton.settings) as probe:
        await probe.heal()
    await local.probe()
    assert local.is_up()
    assert await text_of(local, ask(max_tokens=4))


async def test_model_that_dies_in_mid_answer(triton: RunningTriton, local: TritonTarget) -> None:
    """Triton leaves such an answer open, so it is the inter-token limit that finds it; it never looks whole.

    The next request says what happened, and the open answer does not keep the model from being mended.
    """
    answer = await endless(local)
    os.kill(triton.stub_pid(), signal.SIGKILL)
    with pytest.raises((UpstreamError, TimeoutError)):
        async with asyncio.timeout(_SILENT_S):
            async for piece in answer:
                assert not piece.finished
    assert "is not healthy" in str(await dead(local))
    async with TritonProbe(triton.settings) as probe:
        (finding,) = await probe.heal()
    assert finding.health is Health.RELOADED, finding
    assert await text_of(local, ask(max_tokens=4))


async def test_unloaded_model(local: TritonTarget, triton: RunningTriton) -> None:
    """A model that is not there is down, too."""
    async with open_channel(f"127.0.0.1:{triton.settings.grpc_port}") as channel:
        spec = TargetSpec(
            Target(name="none", model="none"), local.spec.limits, Capabilities(), default_max_output_tokens=1
        )
        missing = TritonTarget(spec, channel, "smollm2", timedelta(seconds=5))
        await missing.probe()
        assert not missing.is_up()
        with pytest.raises(UpstreamError) as raised:
            await pieces_of(missing, ask())
        assert raised.value.details == {"down": "true"}


async def test_full_queue_is_saturation(local: TritonTarget) -> None:
    """Fault 18: beyond slot and queue requests are refused at once, and who waited too long is refused, too.

    Neither is a failure: the target stays up, the running answer goes on.
    """
    async with aclosing(await endless(local)) as running:
        # One is taken by the model, which waits for its slot, and one fits the queue.
        waiting = {asyncio.ensure_future(pieces_of(local, ask(max_tokens=1))) for _ in range(6)}
        refused: set[asyncio.Task[list[Piece]]] = set()
        while len(refused) < 4:
            more, waiting = await asyncio.wait(waiting, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            assert more
            refused |= more
        assert {saturation(task.exception()) for task in refused} == {"Exceeds maximum queue size"}
        assert local.is_up()
        assert not (await anext(running)).finished
        # Until the one in the queue has waited too long.
        await asyncio.wait(waiting, timeout=_QUEUE_S + 0.5)
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    ((last, *_),) = [[*pieces][::-1] for pieces in ends if not isinstance(pieces, BaseException)]
    assert last.finished
    (late,) = [error for error in ends if isinstance(error, BaseException)]
    assert saturation(late) == "Request timeout expired"
    assert local.is_up()


def saturation(error: BaseException | None) -> str:
    """Which of Triton's words for it came."""
    assert isinstance(error, RateLimited)
    assert error.details == {"saturated": "true"}
    (phrase,) = (
        text for text in ("Exceeds maximum queue size", "Request timeout expired") if text in str(error)
    )
    return phrase


async def test_leaving_in_mid_answer_frees_the_model(local: TritonTarget) -> None:
    """Fault 19: within a second the only slot answers somebody else; the answer left would have held it for long."""
    limit_s = await freed_within_s(local)
    for _ in range(3):
        answer = await endless(local)
        await answer.aclose()
        assert await first_token_s(local) < limit_s


async def test_leaving_before_the_first_token_frees_the_model(local: TritonTarget) -> None:
    """The same while the model still reads the prompt."""
    limit_s = await freed_within_s(local)
    answer = local.generate(ask("word " * 400, max_tokens=64), "req_1", stream=True)
    waiting = asyncio.ensure_future(anext(answer))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await answer.aclose()
    assert await first_token_s(local) < limit_s


async def test_answer_follows_its_schema(local: TritonTarget) -> None:
    """`response_format` is honoured by the model, not by luck: the answer parses and follows the schema."""
    form = {"type": "json_schema", "json_schema": {"name": "river", "schema": SCHEMA}}
    pieces = await pieces_of(local, ask("Tell me about a river.", response_format=form, max_tokens=100))
    river = json.loads("".join(piece.text for piece in pieces))
    assert river.keys() == {"river", "km"}
    assert isinstance(river["km"], int)
    assert pieces[-1].finish_reason == FinishReason.STOP


async def test_json_object(local: TritonTarget) -> None:
    """Any object; left alone this model does not begin with a brace."""
    assert not (await text_of(local, ask(max_tokens=4))).startswith("{")
    form = {"type": "json_object"}
    assert (await text_of(local, ask(max_tokens=4, response_format=form))).startswith("{")


async def test_schema_that_cannot_be_followed(local: TritonTarget) -> None:
    """Another target may be able to; with none left the client is told which parameter it was."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    with pytest.raises(UnsupportedParameter) as raised:
        await pieces_of(local, ask(response_format=form))
    assert raised.value.param == "response_format"
    assert local.is_up()


async def test_answer_is_continued(local: TritonTarget) -> None:
    """Greedy decoding goes on where an answer broke off as if it had not, wherever between two words that was."""
    whole = await text_of(local, ask(max_tokens=40))
    words = whole.split(" ")
    for count in (4, 9):
        begun = " ".join(words[:count])
        for prefill in (begun, begun + " "):
            rest = await text_of(local, ask(max_tokens=40), prefill)
            assert (prefill + rest)[: len(prefill) + 20] == whole[: len(prefill) + 20]


async def test_raw_prompt(local: TritonTarget) -> None:
    """A raw completion is the prompt's continuation: no template, so fewer tokens than the same text in a chat."""
    raw = await pieces_of(
        local, completion_request.read(json.dumps({"prompt": "Hi", "max_tokens": 4}).encode())
    )
    chat = await pieces_of(local, ask("Hi", max_tokens=4))
    assert raw[-1].usage is not None
    assert chat[-1].usage is not None
    assert raw[-1].usage.input_tokens == 1
    assert chat[-1].usage.input_tokens > 10


async def test_full_context_is_no_whole_answer(local: TritonTarget) -> None:
    """An answer that the context cuts says so; a prompt that does not fit is an error of its own."""
    pieces = await pieces_of(local, ask("word " * 400, response_format=ENDLESS, max_tokens=400))
    assert pieces[-1].finish_reason == FinishReason.LENGTH
    usage = pieces[-1].usage
    assert usage is not None
    assert usage.input_tokens + usage.output_tokens >= _CONTEXT
    with pytest.raises(ContextTooLong):
        await pieces_of(local, ask("word " * _CONTEXT))
