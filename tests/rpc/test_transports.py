"""One suite over both transports: a generated client sees the same over a channel and inside a process."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from gen.rpc import Metadata, RpcContext
from gen.weir.ledger.v1 import RecordRequest
from gen.weir.router.v1 import (
    Delta,
    GenerateRequest,
    GenerateResponse,
    ListModelsRequest,
    ListModelsResponse,
    Model,
)
from meshkit.errors import (
    InternalFault,
    InvalidRequest,
    RateLimited,
    UpstreamTruncated,
)
from tests.fakes.mesh import Mesh, open_mesh

_PATIENCE_S = 5.0


@pytest.fixture(params=["channel", "inprocess"])
async def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Mesh]:
    """The same servicers behind either transport."""
    async with open_mesh(request.param, tmp_path / "log") as opened:
        yield opened


async def test_unary_answers(mesh: Mesh) -> None:
    """A unary call returns what the servicer returned."""
    answer = await mesh.router.list_models(ListModelsRequest())
    assert answer == ListModelsResponse(models=[Model(name="local")])


async def test_an_empty_message_is_an_answer(mesh: Mesh) -> None:
    """A message with every field at its default is not mistaken for no message."""

    async def empty(_: RpcContext) -> AsyncIterator[GenerateResponse]:
        yield GenerateResponse()
        yield GenerateResponse()

    mesh.servicer.stream = empty
    assert [event async for event in mesh.router.generate(GenerateRequest())] == [GenerateResponse()] * 2


async def test_stream_keeps_order(mesh: Mesh) -> None:
    """A server stream yields everything in order and ends."""
    events = [event async for event in mesh.router.generate(GenerateRequest())]
    assert events == [GenerateResponse(delta=Delta(text=text)) for text in "ab"]


async def test_bidi_answers_while_it_is_sent(mesh: Mesh) -> None:
    """On a bidi stream an answer arrives before the next request is sent."""
    outgoing: asyncio.Queue[RecordRequest | None] = asyncio.Queue()

    async def requests() -> AsyncIterator[RecordRequest]:
        while (request := await outgoing.get()) is not None:
            yield request

    async with asyncio.timeout(_PATIENCE_S):
        answers = mesh.ledger.record(requests())
        for sequence in (1, 2, 3):
            outgoing.put_nowait(RecordRequest(sequence=sequence))
            assert (await anext(answers)).acked_through == sequence
        outgoing.put_nowait(None)
        assert [answer async for answer in answers] == []


async def test_bidi_error_ends_the_stream(mesh: Mesh) -> None:
    """An error of the servicer reaches the caller though requests are still open."""
    mesh.ledger_servicer.failure = InvalidRequest("sequence: must be 1", param="sequence")

    async def requests() -> AsyncIterator[RecordRequest]:
        yield RecordRequest(sequence=9)
        await asyncio.Event().wait()

    with pytest.raises(InvalidRequest) as caught:
        async with asyncio.timeout(_PATIENCE_S):
            await anext(mesh.ledger.record(requests()))
    assert caught.value.param == "sequence"


async def test_error_keeps_its_facts(mesh: Mesh) -> None:
    """A noun arrives as the same noun, with message, param, retry-after and details."""

    async def fail(_: RpcContext) -> ListModelsResponse:
        raise RateLimited(
            "too fast: größer als erlaubt\n\x7f 100 %",
            param="model",
            retry_after=timedelta(seconds=1.5),
            details={"attempts": "local: refused; cloud: 429"},
        )

    mesh.servicer.answer = fail
    with pytest.raises(RateLimited) as caught:
        await mesh.router.list_models(ListModelsRequest())
    error = caught.value
    assert error.message == "too fast: größer als erlaubt   100 %"
    assert (error.param, error.retry_after) == ("model", timedelta(seconds=1.5))
    assert error.details == {"attempts": "local: refused; cloud: 429"}


async def test_error_after_the_first_message(mesh: Mesh) -> None:
    """What was sent before the error arrives before the error."""

    async def cut(_: RpcContext) -> AsyncIterator[GenerateResponse]:
        yield GenerateResponse(delta=Delta(text="half"))
        raise UpstreamTruncated("the provider's connection was cut")

    mesh.servicer.stream = cut
    seen: list[str] = []
    with pytest.raises(UpstreamTruncated):
        async for event in mesh.router.generate(GenerateRequest()):
            seen += [event.delta.text] if event.delta else []
    assert seen == ["half"]


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("secret-text"),
        InternalFault("secret-text"),
        TimeoutError("secret-text"),
        StopAsyncIteration("x"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])
async def test_unknown_error_is_a_bare_internal(mesh: Mesh, failure: Exception, *, streaming: bool) -> None:
    """The caller learns the request id and nothing else; the log has the rest under the same id."""

    async def fail(_: RpcContext) -> ListModelsResponse:
        raise failure

    async def fail_stream(context: RpcContext) -> AsyncIterator[GenerateResponse]:
        await fail(context)
        yield GenerateResponse()

    mesh.servicer.answer, mesh.servicer.stream = fail, fail_stream
    metadata: Metadata = (("x-request-id", "label-1"),)
    with pytest.raises(InternalFault) as caught:
        if streaming:
            await anext(mesh.router.generate(GenerateRequest(), metadata=metadata))
        else:
            await mesh.router.list_models(ListModelsRequest(), metadata=metadata)
    assert caught.value.message == "internal error; the log has it under request id label-1"
    line = mesh.log_lines()[-1]
    assert line["request_id"] == "label-1"
    assert line["level"] == "error"


async def test_metadata_arrives(mesh: Mesh) -> None:
    """Metadata arrives: text, bytes, authorization, and the last value of a repeated name."""
    await mesh.router.list_models(
        ListModelsRequest(),
        metadata=(
            ("authorization", "Bearer k"),
            ("x-twice", "1"),
            ("x-twice", "2"),
            ("x-raw-bin", b"\0\xff"),
        ),
    )
    assert mesh.servicer.context is not None
    seen = mesh.servicer.context.metadata
    assert (seen["authorization"], seen["x-twice"], seen["x-raw-bin"]) == ("Bearer k", "2", b"\0\xff")


@pytest.mark.parametrize("label", ["client-7", "A.b_c:1-" * 16])
async def test_sane_request_id_is_kept(mesh: Mesh, label: str) -> None:
    """The caller's own label is the request's."""
    await mesh.router.list_models(ListModelsRequest(), metadata=(("x-request-id", label),))
    assert mesh.servicer.context is not None
    assert mesh.servicer.context.request_id == label


@pytest.mark.parametrize("label", [None, "", "two words", "x" * 129, 'quo"te', "semi;colon"])
async def test_other_request_ids_are_minted(mesh: Mesh, label: str | None) -> None:
    """A missing or unfit label is replaced by one of ours."""
    metadata: Metadata = () if label is None else (("x-request-id", label),)
    await mesh.router.list_models(ListModelsRequest(), metadata=metadata)
    assert mesh.servicer.context is not None
    assert mesh.servicer.context.request_id.startswith("req_")


@pytest.mark.parametrize("mesh", ["channel"], indirect=True)
async def test_malformed_bytes_are_refused(mesh: Mesh) -> None:
    """Bytes cut short end in INVALID_ARGUMENT with our details, and the next request is answered."""
    assert mesh.channel is not None
    raw: Any = mesh.channel.unary_unary("/weir.router.v1.Router/ListModels")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(b"\x0a\x05ab")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailers = dict(caught.value.trailing_metadata() or ())
    assert trailers["x-weir-http-status"] == "400"
    assert "malformed" in json.loads(trailers["x-weir-error"])["error"]["message"]
    await mesh.router.list_models(ListModelsRequest())
    assert mesh.log_lines() == []
