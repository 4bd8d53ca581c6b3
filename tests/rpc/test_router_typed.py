"""The typed contract over real gRPC, on scripted targets: what it offers beyond text, routing, and its errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from prometheus_client import CollectorRegistry

from gen.weir.error.v1 import Reason
from gen.weir.ledger.v1 import Outcome
from gen.weir.router.v1 import Delta, GenerateRequest, GenerateResponse, OnCut, RouteOptions
from gen.weir.type.v1 import (
    Audio,
    ChatMessage,
    ContentPart,
    FinishReason,
    Image,
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
    Role,
    Sampling,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolMode,
    Usage,
)
from meshkit.channel import open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import (
    BudgetExhausted,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    RateLimited,
    UnsupportedParameter,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTruncated,
    WeirError,
)
from meshkit.server import MeshServer
from meshkit.settings import Listen
from meshkit.telemetry import Logger
from services.router.ports import Piece
from tests.harness.typed_router import BEARER, USER, OneRouter, Typed, status_of, until

NOW = Tool(name="now", parameters_json_schema='{"type":"object"}')
CALLS = [
    ToolCallDelta(index=0, id="call_1", name="now", arguments='{"zone":'),
    ToolCallDelta(index=0, arguments='"UTC"}'),
]
END = Piece(finished=True, finish_reason=FinishReason.STOP, usage=Usage(input_tokens=5, output_tokens=2))
CALLING = [
    Piece(text="See.", tool_calls=CALLS[:1], tool_call_begun=True),
    Piece(tool_calls=CALLS[1:]),
    Piece(finished=True, finish_reason=FinishReason.TOOL_CALLS, usage=Usage(input_tokens=5, output_tokens=9)),
]
HELLO = [Piece(text="Hel"), Piece(text="lo"), END]
CUT = [Piece(text="Hel"), UpstreamTruncated("cut")]


@pytest.fixture
async def serve(tmp_path: Any) -> AsyncIterator[Any]:
    """Starts a router on scripted targets."""
    async with AsyncExitStack() as exits:

        async def start(local: Sequence[Any] = HELLO, cloud: Sequence[Any] = HELLO, *can: str) -> Typed:
            service = OneRouter(local, cloud, *can)
            address = f"unix:{tmp_path}/router.sock"
            listen = Listen(address, "127.0.0.1", 0, timedelta(seconds=1))
            server = MeshServer("router", service, listen, CollectorRegistry(), Logger("router"))
            await server.start()
            exits.push_async_callback(server.stop)
            channel = open_channel(address)
            exits.push_async_callback(channel.close)
            await channel.channel_ready()
            return Typed(service, channel)

        yield start


def text(events: list[GenerateResponse]) -> str:
    """The answer's text."""
    return "".join(event.delta.text for event in events if event.delta is not None)


def target(events: list[GenerateResponse]) -> str:
    """The name of the target that answered first."""
    started = events[0].started
    assert started is not None
    assert started.target is not None
    return started.target.name


async def test_tools(serve: Any) -> None:
    """Tools, the choice, earlier calls and results reach a provider; its calls come back as deltas."""
    typed = await serve([UpstreamError("gone")], CALLING)
    call = ToolCall(id="call_0", name="now", arguments="{}")
    events = await typed.ask(
        messages=[
            USER,
            ChatMessage(role=Role.ASSISTANT, tool_calls=[call]),
            ChatMessage(role=Role.TOOL, content="7", tool_call_id="call_0"),
        ],
        tools=[NOW],
        tool_choice=ToolChoice(mode=ToolMode.REQUIRED),
        parallel_tool_calls=False,
    )
    assert [event.delta for event in events if event.delta is not None] == [
        Delta(text="See.", tool_calls=CALLS[:1]), Delta(tool_calls=CALLS[1:]),
    ]  # fmt: skip
    assert events[-1].finished is not None
    assert events[-1].finished.finish_reason == FinishReason.TOOL_CALLS
    sent = json.loads(typed.service.cloud.asked[0].body("gpt", stream=True))
    assert sent["tools"] == [
        {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
    ]
    assert (sent["tool_choice"], sent["parallel_tool_calls"]) == ("required", False)
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool"]
    assert typed.service.local.asked == []


async def test_a_local_model_with_tools(serve: Any) -> None:
    """One that has tools is given them, and its calls are deltas; a forced call is beyond it."""
    typed = await serve(CALLING, HELLO, "tools")
    events = await typed.ask(tools=[NOW])
    assert target(events) == "local"
    assert typed.service.local.asked[0].typed.tools == [NOW]
    assert [delta for event in events if event.delta for delta in event.delta.tool_calls] == CALLS
    forced = {"tools": [NOW], "tool_choice": ToolChoice(function="now")}
    assert target(await typed.ask(**forced)) == "cloud"
    error = await typed.refused(UnsupportedParameter, model="local", **forced)
    assert error.param == "tool_choice.function"


async def test_a_call_that_breaks_off_before_it_is_given(serve: Any) -> None:
    """While a local model's call is held back the client has nothing, so the next target begins anew."""
    held = Piece(content=True)  # a token of a call that is not whole yet
    typed = await serve([held, 0.15, held, 0.15, held, UpstreamTruncated("cut")], CALLING, "tools")
    events = await typed.ask(tools=[NOW], route=RouteOptions(on_cut=OnCut.ERROR))
    assert target(events) == "cloud"
    assert [delta for event in events if event.delta for delta in event.delta.tool_calls] == CALLS
    assert typed.service.log.ended[0].outcome == Outcome.CUT
    assert typed.service.log.ended[0].first_token is not None


async def test_parts(serve: Any) -> None:
    """What a text model cannot see takes it out of the plan, and is named where nobody can."""
    typed = await serve()
    parts = [ContentPart(text="what?"), ContentPart(image=Image(url="https://example.com/a.png"))]
    messages = [ChatMessage(role=Role.USER, parts=parts)]
    events = await typed.ask(messages=messages)
    assert events[0].started is not None
    assert [step.target.name for step in events[0].started.plan if step.target] == ["cloud"]
    sent = json.loads(typed.service.cloud.asked[0].body("gpt", stream=True))
    assert [part["type"] for part in sent["messages"][0]["content"]] == ["text", "image_url"]
    error = await typed.refused(UnsupportedParameter, model="local", messages=messages)
    assert error.param == "messages[0].parts[1]"


@pytest.mark.parametrize(
    "form",
    [
        ResponseFormat(json_object=JsonObjectFormat()),
        ResponseFormat(json_schema=JsonSchemaFormat(name="out", schema='{"type":"object"}')),
    ],
)
async def test_forms(serve: Any, form: ResponseFormat) -> None:
    """A form goes to a model that can keep to it, unchanged; another one is not asked."""
    typed = await serve(HELLO, HELLO, "json_schema")
    assert target(await typed.ask(response_format=form)) == "local"
    assert typed.service.local.asked[0].typed.response_format == form


async def test_a_form_that_no_target_keeps_to(serve: Any) -> None:
    """It is named."""
    typed = await serve()
    form = ResponseFormat(json_object=JsonObjectFormat())
    error = await typed.refused(UnsupportedParameter, model="local", response_format=form)
    assert error.param == "response_format"


async def test_plan_and_cost(serve: Any) -> None:
    """The first event names all that would have been asked, the last one what it took and cost."""
    typed = await serve(HELLO)
    events = await typed.ask()
    started, finished = events[0].started, events[-1].finished
    assert started is not None
    assert finished is not None
    assert [(step.target.name, step.reason) for step in started.plan if step.target] == [
        ("local", "model both"), ("cloud", "model both"),
    ]  # fmt: skip
    assert (started.request_id, started.attempts, target(events)) == ("mine-1", 1, "local")
    assert (finished.attempts, finished.cost_nano_usd) == (1, 5 * 1_000 + 2 * 2_000)
    assert finished.usage == END.usage


async def test_a_failed_target_is_told_of(serve: Any) -> None:
    """The plan stays what it was; attempts and reason tell what happened. What has no price has no cost."""
    typed = await serve([UpstreamError("gone")])
    events = await typed.ask()
    started, finished = events[0].started, events[-1].finished
    assert started is not None
    assert finished is not None
    assert [step.target.name for step in started.plan if step.target] == ["local", "cloud"]
    assert (target(events), started.attempts, finished.attempts) == ("cloud", 2, 2)
    assert started.route_reason == "model both; local failed: UPSTREAM_ERROR"
    assert finished.cost_nano_usd is None


async def test_headers(serve: Any) -> None:
    """The same is told in the call's initial metadata, before the first event."""
    typed = await serve([UpstreamError("gone")])
    call = typed.channel.unary_stream("/weir.router.v1.Router/Generate")(
        mesh_codec().encode(GenerateRequest(messages=[USER])), metadata=BEARER
    )
    headers = dict(await call.initial_metadata())
    call.cancel()
    assert {name: headers[name] for name in ("x-request-id", "x-weir-target", "x-weir-attempts")} == {
        "x-request-id": "mine-1", "x-weir-target": "cloud", "x-weir-attempts": "2",
    }  # fmt: skip


async def test_targets_of_the_request(serve: Any) -> None:
    """Only these, in this order; what is none of the model's is named."""
    typed = await serve()
    events = await typed.ask(route=RouteOptions(targets=["cloud", "local"]))
    assert events[0].started is not None
    assert [step.target.name for step in events[0].started.plan if step.target] == ["cloud", "local"]
    only = await typed.ask(route=RouteOptions(targets=["cloud"]))
    assert only[0].started is not None
    assert len(only[0].started.plan) == 1
    await typed.refused(InvalidRequest, route=RouteOptions(targets=["elsewhere"]))
    await typed.refused(InvalidRequest, model="local", route=RouteOptions(targets=["cloud"]))


async def test_fallbacks_of_the_request(serve: Any) -> None:
    """Their targets follow the model's own; one that is not there, or not the key's to use, is named."""
    typed = await serve([UpstreamError("gone")])
    events = await typed.ask(model="local", route=RouteOptions(fallbacks=["cloud"]))
    assert events[0].started is not None
    assert events[0].started.plan[1].reason == "fallback cloud"
    assert target(events) == "cloud"
    for name, kind in (("nowhere", ModelNotFound), ("secret", Forbidden)):
        error = await typed.refused(kind, route=RouteOptions(fallbacks=["cloud", name]))
        assert error.param == "route.fallbacks[1]"


async def test_cut_answer_as_the_request_wishes(serve: Any) -> None:
    """An answer that breaks off is an error, gone on with, or held back until another one is whole."""
    typed = await serve(CUT, [Piece(text="Hello"), END])
    await typed.refused(UpstreamTruncated, route=RouteOptions(on_cut=OnCut.ERROR))
    continued = await typed.ask(route=RouteOptions(on_cut=OnCut.CONTINUE))
    assert (target(continued), text(continued)) == ("local", "Hello")
    held = await typed.ask(route=RouteOptions(on_cut=OnCut.HOLD))
    assert (target(held), text(held)) == ("cloud", "Hello")
    for events in (continued, held):
        assert events[-1].finished is not None
        assert events[-1].finished.attempts == 2
    error = await typed.refused(InvalidRequest, route=RouteOptions(on_cut=OnCut(9)))
    assert error.param == "route.on_cut"


async def test_deadline(serve: Any) -> None:
    """When the caller's deadline passes the answer ends, at the target too."""
    typed = await serve([Piece(text="a"), None])
    request = GenerateRequest(messages=[USER])
    seen = []
    with pytest.raises(UpstreamTimeout):
        async for event in typed.client.generate(request, metadata=BEARER, timeout=timedelta(seconds=0.15)):
            seen.append(event)  # noqa: PERF401 - what was seen before the error counts
    assert text(seen) == "a"
    await until(lambda: typed.service.local.closed == 1 and len(typed.service.log.ended) == 1)
    assert typed.service.cloud.asked == []


async def test_cancellation(serve: Any) -> None:
    """A caller that goes away leaves nothing running at the target."""
    typed = await serve([Piece(text="a"), None])
    async with aclosing(typed.client.generate(GenerateRequest(messages=[USER]), metadata=BEARER)) as events:
        async for event in events:
            if event.delta is not None:
                break
    await until(lambda: typed.service.local.closed == 1 and len(typed.service.log.ended) == 1)
    assert typed.service.log.ended[0].outcome == Outcome.CANCELLED


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [USER, ChatMessage(role=Role.TOOL, content="7")]}, "messages[1].tool_call_id"),
        ({"messages": [USER, ChatMessage(role=Role(9), content="7")]}, "messages[1].role"),
        ({"messages": [ChatMessage(role=Role.USER, parts=[ContentPart()])]}, "messages[0].parts[0]"),
        (
            {"messages": [ChatMessage(role=Role.USER, parts=[ContentPart(audio=Audio(data=b"x"))])]},
            "messages[0].parts[0].audio.format",
        ),
        ({"tools": [Tool(name="no name")]}, "tools[0].name"),
        ({"tools": [Tool(name="f", parameters_json_schema="[]")]}, "tools[0].parameters_json_schema"),
        ({"sampling": Sampling(temperature=9.0)}, "sampling.temperature"),
        ({"response_format": ResponseFormat()}, "response_format"),
    ],
)  # fmt: skip
async def test_bad_requests_reach_no_target(serve: Any, fields: dict[str, Any], param: str) -> None:
    """They are refused with the place at fault, which BadRequest names too."""
    typed = await serve()
    assert (await typed.refused(InvalidRequest, **fields)).param == param
    status = await status_of(typed, GenerateRequest(**{"messages": [USER], **fields}))
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert [violation.field for violation in bad.field_violations] == [param]
    assert typed.service.log.begun == []


@pytest.mark.parametrize(
    ("error", "subject"),
    [
        (RateLimited("slow down", retry_after=timedelta(seconds=7)), "rate"),
        (BudgetExhausted("all spent", retry_after=timedelta(seconds=7)), "budget"),
    ],
)
async def test_details_of_limits(serve: Any, error: WeirError, subject: str) -> None:
    """ErrorInfo, RetryInfo and QuotaFailure tell any gRPC client what is used up and when to come back."""
    typed = await serve([error])
    status = await status_of(typed, GenerateRequest(model="local", messages=[USER]))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    quota = error_details_pb2.QuotaFailure()
    for kind in (info, retry, quota):
        assert any(detail.Unpack(kind) for detail in status.details), kind.DESCRIPTOR.name
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert (info.reason, info.domain) == (Reason(error.reason).name, "weir")
    assert retry.retry_delay.ToTimedelta() == timedelta(seconds=7)
    assert [violation.subject for violation in quota.violations] == [subject]
