"""gRPC-Web through the edge, on the port of HTTP/JSON: what a browser gets of the typed contract."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta

import pytest
from google.rpc import status_pb2

from gen.weir.router.v1 import (
    EmbedRequest,
    EmbedResponse,
    GenerateRequest,
    GenerateResponse,
    ListModelsRequest,
    ListModelsResponse,
)
from meshkit.codec import mesh_codec
from tests.mesh.edge.grpc_web import BINARY, TEXT, TRAILERS, Frame, call, frames
from tests.mesh.edge.rig import Edge
from tests.mesh.edge.stand_in import DO, Script, failure

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODEC = mesh_codec()
ROUTER = "/weir.router.v1.Router"
LIST_MODELS = f"{ROUTER}/ListModels"
GENERATE = f"{ROUTER}/Generate"
EMBED = f"{ROUTER}/Embed"
WAITING = CODEC.encode(GenerateRequest(model="wait"))
KINDS = pytest.mark.parametrize("kind", [BINARY, TEXT])
SOON_S = 1.0
"""How fast a client that is gone must be noticed."""


def text_of(frame: Frame) -> str:
    """The text of a delta."""
    event = CODEC.decode(GenerateResponse, frame.payload)
    assert event.delta is not None
    return event.delta.text


@KINDS
@pytest.mark.usefixtures("script")
async def test_unary(running: Edge, kind: str) -> None:
    """One message, then the trailers with status 0; the answer's type is the one that was asked for."""
    async with call(running, LIST_MODELS, CODEC.encode(ListModelsRequest()), kind) as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith(kind)
        message, trailers = frames(await response.read(), kind)
    assert [model.name for model in CODEC.decode(ListModelsResponse, message.payload).models] == ["local"]
    assert trailers.trailers["grpc-status"] == "0"


@KINDS
@pytest.mark.usefixtures("script")
async def test_the_message_arrives_whole(running: Edge, kind: str) -> None:
    """A request with content: the RPC answers for each of its inputs."""
    asked = CODEC.encode(EmbedRequest(model="local-embed", inputs=["żółw", "🐢", "weir"]))
    async with call(running, EMBED, asked, kind) as response:
        message, _ = frames(await response.read(), kind)
    assert len(CODEC.decode(EmbedResponse, message.payload).embeddings) == 3


@KINDS
async def test_a_message_arrives_before_the_next_is_sent(running: Edge, script: Script, kind: str) -> None:
    """The first one is here while the router still waits to send the second."""
    async with call(running, GENERATE, WAITING, kind) as response:
        first = await response.content.readany()
        assert not script.release.is_set()
        script.release.set()
        whole = first + await response.read()
    assert text_of(frames(first, kind)[0]) == "żółw"
    *messages, trailers = frames(whole, kind)
    assert "".join(map(text_of, messages)) == "żółw 🐢"
    assert trailers.trailers["grpc-status"] == "0"


@KINDS
@pytest.mark.usefixtures("script")
async def test_error_with_details(running: Edge, kind: str) -> None:
    """Before the first message the status is in the headers: code, details and retry-after, and nothing else's."""
    async with call(running, LIST_MODELS, b"", kind, **{DO: "fail:RATE_LIMITED"}) as response:
        assert (response.status, await response.read()) == (200, b"")
        headers = response.headers
    raised = failure("RATE_LIMITED")
    assert (headers["grpc-status"], headers["retry-after"]) == ("8", "7")
    encoded = headers["grpc-status-details-bin"]
    details = status_pb2.Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))
    assert details.message == raised.message
    kinds = {detail.type_url.rpartition(".")[2] for detail in details.details}
    assert {"ErrorInfo", "RetryInfo", "QuotaFailure"} <= kinds
    assert not [name for name in headers if name.lower().startswith(("x-weir-", "x-envoy-"))]


@KINDS
async def test_the_deadline_reaches_the_router(running: Edge, script: Script, kind: str) -> None:
    """`grpc-timeout` counts here as for native clients; the call ends with DEADLINE_EXCEEDED and is cancelled."""
    async with call(running, GENERATE, WAITING, kind, grpc_timeout="500m") as response:
        *messages, trailers = frames(await response.read(), kind)
    assert [text_of(message) for message in messages] == ["żółw"]
    assert trailers.trailers["grpc-status"] == "4"
    (remaining,) = script.time_remaining
    assert remaining is not None
    assert timedelta(0) < remaining <= timedelta(seconds=0.5)
    async with asyncio.timeout(SOON_S):
        await script.cancelled.wait()


@KINDS
async def test_a_page_that_goes_cancels_its_call(running: Edge, script: Script, kind: str) -> None:
    """The router's handler is cancelled within a second."""
    async with call(running, GENERATE, WAITING, kind) as response:
        await response.content.readany()
        await script.reached.wait()
        response.close()
        async with asyncio.timeout(SOON_S):
            await script.cancelled.wait()


@pytest.mark.usefixtures("script")
async def test_what_is_no_message(running: Edge) -> None:
    """INVALID_ARGUMENT, as for native clients."""
    async with call(running, GENERATE, b"\xff", BINARY) as response:
        body = await response.read()
        found = response.headers.get("grpc-status")
    assert (found or frames(body, BINARY)[-1].trailers["grpc-status"]) == "3"


@pytest.mark.usefixtures("script")
async def test_trailers_hold_nothing_of_the_mesh(running: Edge) -> None:
    """What only the edge reads is in no frame."""
    async with call(running, GENERATE, b"", BINARY) as response:
        *_, trailers = frames(await response.read(), BINARY)
    assert trailers.flags == TRAILERS
    assert not [name for name in trailers.trailers if name.startswith(("x-weir-", "x-envoy-"))]
