"""gRPC through the edge, on the port of HTTP/JSON."""

from __future__ import annotations

import struct
from datetime import timedelta

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gen.google.api import HttpBody
from gen.weir.error.v1 import Reason
from gen.weir.openai.v1.service import OpenAIClient
from gen.weir.router.v1 import GenerateRequest, ListModelsRequest
from gen.weir.router.v1.service import RouterClient
from meshkit.channel import ChannelTransport
from meshkit.codec import mesh_codec
from meshkit.errors import BY_REASON, TABLE, UpstreamTimeout
from tests.mesh.edge.rig import Edge, call
from tests.mesh.edge.stand_in import DO, Script, failure

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIST_MODELS = "/weir.router.v1.Router/ListModels"
GENERATE = "/weir.router.v1.Router/Generate"
BLOCKED = [
    "/weir.ledger.v1.Ledger/Usage",
    "/weir.auth.v1.Auth/CreateKey",
    "/weir.cloud.v1.CloudAdapter/Generate",
    "/weir.router.v1.RouterAdmin/Stop",
    "/weir.router.v1.Router",
    "/v1/chat/completions",
    "/",
]
NO_MESSAGE = struct.pack(">BI", 0, 0)
RAISED = [reason for reason in TABLE if reason is not Reason.INTERNAL]


@pytest.fixture
def router(channel: grpc.aio.Channel) -> RouterClient:
    """The generated client of the router, through the edge."""
    return RouterClient(ChannelTransport(channel, mesh_codec()))


@pytest.mark.usefixtures("script")
async def test_unary(router: RouterClient) -> None:
    """A unary call passes."""
    assert [model.name for model in (await router.list_models(ListModelsRequest())).models] == ["local"]


async def test_stream_message_by_message(router: RouterClient, script: Script) -> None:
    """The first message is here while the router waits to send the second."""
    stream = router.generate(GenerateRequest(model="wait"))
    first = await anext(stream)
    assert first.delta is not None
    assert first.delta.text == "żółw"
    assert not script.release.is_set()
    script.release.set()
    assert [event.delta.text for event in [item async for item in stream] if event.delta] == [" 🐢"]


async def test_http_body_over_grpc(channel: grpc.aio.Channel, script: Script) -> None:
    """OpenAI's face can be called natively too; nothing is transcoded."""
    client = OpenAIClient(ChannelTransport(channel, mesh_codec()))
    body = HttpBody(content_type="x/y", data=b"\x00\xff")
    assert [item.data async for item in client.chat_completions(body)] == [b"\x00\xff"]
    assert script.bodies[-1].content_type == "x/y"


@pytest.mark.parametrize("reason", RAISED, ids=lambda reason: Reason(reason).name)
@pytest.mark.usefixtures("script")
async def test_errors_arrive_as_the_nouns_that_were_raised(router: RouterClient, reason: Reason) -> None:
    """Code, message and details pass untouched."""
    name = Reason(reason).name
    with pytest.raises(BY_REASON[reason]) as caught:
        await router.list_models(ListModelsRequest(), metadata=((DO, f"fail:{name}"),))
    assert caught.value.message == failure(name).message
    assert caught.value.param == "messages[0]"
    assert caught.value.retry_after == timedelta(seconds=7)


@pytest.mark.usefixtures("script")
async def test_what_is_for_the_edge_alone_is_dropped(channel: grpc.aio.Channel) -> None:
    """A native client gets the code and the details, not the HTTP face of the error."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, LIST_MODELS, x_test_do="fail:RATE_LIMITED")
    names = {name for name, _ in caught.value.trailing_metadata() or ()}
    assert names >= {"grpc-status-details-bin", "retry-after", "x-request-id"}
    assert not {name for name in names if name.startswith(("x-weir-", "x-envoy-"))}


async def test_the_deadline_reaches_the_router(router: RouterClient, script: Script) -> None:
    """A native client's deadline is known to the router, and its call is cancelled when it passes."""
    with pytest.raises(UpstreamTimeout):
        async for _ in router.generate(GenerateRequest(model="wait"), timeout=timedelta(seconds=0.5)):
            pass
    (remaining,) = script.time_remaining
    assert remaining is not None
    assert timedelta(0) < remaining < timedelta(seconds=1)
    await script.cancelled.wait()


async def test_a_json_client_cannot_set_a_deadline(running: Edge, script: Script) -> None:
    """`grpc-timeout` and its kin are nothing that HTTP/JSON has."""
    answer = await running.chat(b"1", grpc_timeout="1n", grpc_encoding="gzip", grpc_tags_bin="AA==")
    assert (answer.status, answer.body) == (200, b"1")
    assert script.time_remaining == [None]
    assert not [name for name in script.seen[-1] if name.startswith("grpc-")]


async def test_a_client_that_goes_cancels_its_call(router: RouterClient, script: Script) -> None:
    """Leaving the stream cancels the router's handler."""
    stream = router.generate(GenerateRequest(model="wait"))
    await anext(stream)
    await script.reached.wait()
    await stream.aclose()
    await script.cancelled.wait()


async def test_health(channel: grpc.aio.Channel) -> None:
    """grpc.health.v1 answers for the router."""
    stub = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service="weir.router.v1.Router"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection(channel: grpc.aio.Channel) -> None:
    """A bidi stream: the router's contracts can be listed and read."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = await call.read()
    names = {service.name for service in listed.list_services_response.service}
    assert names >= {"weir.router.v1.Router", "weir.openai.v1.OpenAI", "grpc.health.v1.Health"}
    symbol = "weir.router.v1.Router"
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
    read = await call.read()
    file = descriptor_pb2.FileDescriptorProto.FromString(
        read.file_descriptor_response.file_descriptor_proto[0]
    )
    assert file.name == "weir/router/v1/router.proto"
    await call.done_writing()


@pytest.mark.parametrize("path", BLOCKED)
async def test_blocked_services(channel: grpc.aio.Channel, script: Script, path: str) -> None:
    """What is not for clients is UNIMPLEMENTED."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, path)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert script.seen == []


@pytest.mark.parametrize("path", BLOCKED)
async def test_blocked_services_over_grpc_web(running: Edge, script: Script, path: str) -> None:
    """The same for gRPC-Web."""
    answer = await running.ask("POST", path, NO_MESSAGE, {"content-type": "application/grpc-web+proto"})
    assert (answer.status, answer.headers["grpc-status"]) == (404, "12")
    assert script.seen == []
