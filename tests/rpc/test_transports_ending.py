"""One suite over both transports: how calls end before they are done."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gen.rpc import RpcContext
from gen.weir.ledger.v1 import RecordRequest
from gen.weir.router.v1 import (
    Delta,
    GenerateRequest,
    GenerateResponse,
    ListModelsRequest,
    ListModelsResponse,
)
from meshkit.errors import (
    Cancelled,
    InternalFault,
    NoHealthyTarget,
    UpstreamTimeout,
)
from tests.fakes.mesh import Mesh, open_mesh

_PATIENCE_S = 5.0
_AT_ONCE_S = 1.0


@pytest.fixture(params=["channel", "inprocess"])
async def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Mesh]:
    """The same servicers behind either transport."""
    async with open_mesh(request.param, tmp_path / "log") as opened:
        yield opened


async def test_a_stray_cancellation_is_a_fault(mesh: Mesh) -> None:
    """A servicer that trips over a cancelled task of its own neither hangs the call nor cancels the caller."""

    async def fail(_: RpcContext) -> ListModelsResponse:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task
        raise AssertionError

    mesh.servicer.answer = fail
    with pytest.raises(InternalFault):
        async with asyncio.timeout(_PATIENCE_S):
            await mesh.router.list_models(ListModelsRequest())


async def _forever(_: RpcContext) -> Any:
    await asyncio.Event().wait()


async def _one_then_silence(_: RpcContext) -> AsyncIterator[GenerateResponse]:
    yield GenerateResponse(delta=Delta(text="a"))
    await asyncio.Event().wait()


async def test_deadline_of_a_unary_call(mesh: Mesh) -> None:
    """The caller gets UpstreamTimeout and the servicer is stopped."""
    mesh.servicer.answer = _forever
    with pytest.raises(UpstreamTimeout):
        await mesh.router.list_models(ListModelsRequest(), timeout=timedelta(milliseconds=50))
    await asyncio.wait_for(mesh.servicer.closed.wait(), _AT_ONCE_S)


async def test_deadline_of_a_stream(mesh: Mesh) -> None:
    """The deadline holds for the whole stream; what came before it arrives."""
    mesh.servicer.stream = _one_then_silence
    events = mesh.router.generate(GenerateRequest(), timeout=timedelta(milliseconds=200))
    assert await anext(events) == GenerateResponse(delta=Delta(text="a"))
    with pytest.raises(UpstreamTimeout):
        await anext(events)
    await asyncio.wait_for(mesh.servicer.closed.wait(), _AT_ONCE_S)


async def test_time_remaining(mesh: Mesh) -> None:
    """The servicer knows how long the caller waits, and that nobody set a limit."""
    await mesh.router.list_models(ListModelsRequest(), timeout=timedelta(seconds=40))
    assert mesh.servicer.context is not None
    remaining = mesh.servicer.context.time_remaining()
    assert remaining is not None
    assert timedelta(seconds=20) < remaining <= timedelta(seconds=40)
    await mesh.router.list_models(ListModelsRequest())
    assert mesh.servicer.context.time_remaining() is None


async def test_closing_the_iterator_stops_the_servicer(mesh: Mesh) -> None:
    """`aclose` after the first event closes the servicer's generator within a second."""
    mesh.servicer.stream = _one_then_silence
    events = mesh.router.generate(GenerateRequest())
    await anext(events)
    assert not mesh.servicer.closed.is_set()
    await events.aclose()
    await asyncio.wait_for(mesh.servicer.closed.wait(), _AT_ONCE_S)
    assert mesh.log_lines() == []


async def test_cancelling_a_waiting_caller_stops_the_servicer(mesh: Mesh) -> None:
    """A caller cancelled while it waits sees CancelledError, and the servicer ends within a second."""
    mesh.servicer.stream = _one_then_silence
    first = asyncio.Event()

    async def call() -> None:
        async for _ in mesh.router.generate(GenerateRequest()):
            first.set()

    task = asyncio.create_task(call())
    await asyncio.wait_for(first.wait(), _PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(mesh.servicer.closed.wait(), _AT_ONCE_S)


async def test_cancelling_a_unary_call_stops_the_servicer(mesh: Mesh) -> None:
    """The same for one answer that does not come."""
    begun = asyncio.Event()

    async def wait(_: RpcContext) -> ListModelsResponse:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    mesh.servicer.answer = wait
    task = asyncio.create_task(mesh.router.list_models(ListModelsRequest()))
    await asyncio.wait_for(begun.wait(), _PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(mesh.servicer.closed.wait(), _AT_ONCE_S)


async def test_closing_while_the_servicer_is_ahead(mesh: Mesh) -> None:
    """A servicer held up by a caller that reads nothing is stopped within a second of the caller's leaving."""

    async def flood(_: RpcContext) -> AsyncIterator[GenerateResponse]:
        while True:
            yield GenerateResponse(delta=Delta(text="x" * 100_000))

    mesh.servicer.stream = flood
    events = mesh.router.generate(GenerateRequest())
    await anext(events)
    await events.aclose()
    await asyncio.wait_for(mesh.servicer.closed.wait(), _AT_ONCE_S)


async def test_failing_requests_fail_the_call(mesh: Mesh) -> None:
    """An error of the caller's own request iterator comes back to the caller; its task is not cancelled."""

    async def requests() -> AsyncIterator[RecordRequest]:
        yield RecordRequest(sequence=1)
        raise NoHealthyTarget("spool closed")

    with pytest.raises(NoHealthyTarget):
        async with asyncio.timeout(_PATIENCE_S):
            _ = [answer async for answer in mesh.ledger.record(requests())]


@pytest.mark.parametrize("mesh", ["channel"], indirect=True)
async def test_closing_the_channel_is_not_the_callers_cancellation(mesh: Mesh) -> None:
    """A call under which the channel is closed ends in Cancelled; its task is not cancelled."""
    begun = asyncio.Event()

    async def wait(_: RpcContext) -> ListModelsResponse:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    mesh.servicer.answer = wait
    assert mesh.channel is not None
    call = asyncio.create_task(mesh.router.list_models(ListModelsRequest()))
    await asyncio.wait_for(begun.wait(), _PATIENCE_S)
    await mesh.channel.close()
    with pytest.raises(Cancelled):
        await asyncio.wait_for(call, _PATIENCE_S)
