"""The other endpoints behind the cloud adapter: text completions, responses, embeddings; and tool calls of each."""

import asyncio
import base64
import json
import struct
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gen.weir.cloud.v1 import EmbedRequest, EmbedResponse, Endpoint, GenerateRequest
from gen.weir.type.v1 import FinishReason, ToolCallDelta, Usage
from meshkit.errors import (
    ContentFiltered,
    ContextTooLong,
    InvalidRequest,
    NoHealthyTarget,
    RateLimited,
    UpstreamError,
    UpstreamTruncated,
    WeirError,
)
from tests.fakes.provider import FakeProvider
from tests.fakes.provider_embeddings import vector
from tests.fakes.provider_exchange import words
from tests.fakes.running_adapter import SECRET, SOON_S, RunningAdapter, running_adapter, text_of

TEXT_60 = "".join(words(60))
ENDPOINTS = {
    "completions": Endpoint.COMPLETIONS,
    "responses": Endpoint.RESPONSES,
    "chat/completions": Endpoint.CHAT_COMPLETIONS,
}


@pytest.fixture(params=["separate", "compact"])
async def adapter(request: pytest.FixtureRequest) -> AsyncIterator[RunningAdapter]:
    """The same adapter behind a socket and in this process."""
    with tempfile.TemporaryDirectory(prefix="weir-cloud-") as folder:
        async with (
            FakeProvider() as provider,
            running_adapter(provider, Path(folder), in_process=request.param == "compact") as running,
        ):
            yield running


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_answers(adapter: RunningAdapter, path: str, *, stream: bool) -> None:
    """Each endpoint is asked at its own path, and its answers are read alike: text, end, usage, model, content."""
    responses = await adapter.ask("instant", stream=stream, endpoint=ENDPOINTS[path])
    assert adapter.provider.seen[0].path == f"/v1/{path}"
    assert text_of(responses) == TEXT_60
    assert [response.finished for response in responses] == [False] * (len(responses) - 1) + [True]
    assert {response.finish_reason for response in responses if response.finish_reason} == {FinishReason.STOP}
    (usage,) = (response.usage for response in responses if response.usage is not None)
    reasoning = 0 if path == "responses" else None
    assert usage == Usage(
        input_tokens=9, output_tokens=60, cached_input_tokens=4, reasoning_output_tokens=reasoning
    )
    assert [response.model for response in responses if response.model] == ["instant"]
    assert any(response.content for response in responses)


async def test_bodies_of_a_response_stream(adapter: RunningAdapter) -> None:
    """Every event is passed on as its JSON alone, in order; `type` names it."""
    responses = await adapter.ask("instant:chunks=2,gap_ms=20", stream=True, endpoint=Endpoint.RESPONSES)
    bodies = [json.loads(body) for response in responses for body in response.bodies]
    kinds = [body["type"].removeprefix("response.") for body in bodies]
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [body["sequence_number"] for body in bodies] == list(range(10))
    assert not any(b"\n" in body for response in responses for body in response.bodies)


async def test_bodies_of_a_completion_stream(adapter: RunningAdapter) -> None:
    """Text completions are passed on in their own form; hidden usage is hidden here too."""
    responses = await adapter.ask(
        "instant:chunks=2", stream=True, endpoint=Endpoint.COMPLETIONS, hide_stream_usage=True
    )
    bodies = [json.loads(body) for response in responses for body in response.bodies]
    assert [body["choices"][0]["text"] for body in bodies] == ["It ", "holds ", ""]
    assert all(body["object"] == "text_completion" for body in bodies)
    assert not [body for body in bodies if "usage" in body or "provider" in body]
    assert [response.usage.output_tokens for response in responses if response.usage] == [2]


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT_COMPLETIONS, Endpoint.RESPONSES])
async def test_tool_calls(adapter: RunningAdapter, endpoint: Endpoint) -> None:
    """A call of a tool is told with its id and name, whichever endpoint tells it."""
    responses = await adapter.ask("tool_call", stream=True, endpoint=endpoint)
    (call,) = (call for response in responses for call in response.tool_calls if call.id)
    assert (call.index, call.id, call.name) == (0, "call_1", "look")
    assert responses[-1].tool_call_begun
    assert {response.finish_reason for response in responses} >= {FinishReason.TOOL_CALLS}


async def test_tool_calls_travel(adapter: RunningAdapter) -> None:
    """The parts of a call survive the socket as they were read."""
    responses = await adapter.ask("tool_call", stream=True)
    begun = next(response for response in responses if response.tool_calls)
    assert begun.tool_calls[0] == ToolCallDelta(index=0, id="call_1", name="look")
    assert begun.content


REFUSED: tuple[tuple[str, type[WeirError], str], ...] = (
    ("rate_limit", RateLimited, "429"),
    ("status:code=503", UpstreamError, "503"),
    ("bad_param", InvalidRequest, "400"),
    ("context_length", ContextTooLong, "400"),
    ("content_filter", ContentFiltered, "400"),
    ("error_body", RateLimited, "429"),
    ("html", UpstreamError, "200"),
    ("empty", UpstreamError, "200"),
)


@pytest.mark.parametrize(("model", "kind", "status"), REFUSED)
@pytest.mark.parametrize("endpoint", [Endpoint.COMPLETIONS, Endpoint.RESPONSES])
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_refusals(
    adapter: RunningAdapter,
    endpoint: Endpoint,
    model: str,
    kind: type[WeirError],
    status: str,
    *,
    stream: bool,
) -> None:
    """Refusals and rubbish mean the same at every endpoint."""
    heard, error = await adapter.failing(model, stream=stream, endpoint=endpoint)
    assert (heard, type(error)) == ([], kind)
    assert (error.details["delivered"], error.details["status"]) == ("false", status)
    assert "sk-test" not in error.message


@pytest.mark.parametrize("endpoint", [Endpoint.COMPLETIONS, Endpoint.RESPONSES])
@pytest.mark.parametrize("model", ["cut", "early_end", "error_event"])
async def test_broken_streams(adapter: RunningAdapter, endpoint: Endpoint, model: str) -> None:
    """What arrived is delivered, nothing says finished, and the error says that text was delivered."""
    heard, error = await adapter.failing(f"{model}:after=3", stream=True, endpoint=endpoint)
    assert text_of(heard) == "".join(words(3))
    assert not any(response.finished for response in heard)
    assert (type(error), error.details["delivered"], error.details["status"]) == (
        UpstreamTruncated, "true", "200",
    )  # fmt: skip
    assert "sk-test" not in error.message


async def test_response_cut_before_its_last_event(adapter: RunningAdapter) -> None:
    """A response that was said but not completed is truncated, whatever its items say."""
    heard, error = await adapter.failing("no_done_cut", stream=True, endpoint=Endpoint.RESPONSES)
    assert text_of(heard) == TEXT_60
    assert type(error) is UpstreamTruncated


@pytest.mark.parametrize("model", ["no_done", "done_hangs", "comments:comments=2", "malformed"])
async def test_odd_responses_are_whole(adapter: RunningAdapter, model: str) -> None:
    """Without [DONE], with a connection left open, comments, a malformed event: all is delivered."""
    responses = await adapter.ask(model, stream=True, endpoint=Endpoint.RESPONSES)
    assert text_of(responses) == TEXT_60
    assert responses[-1].finished


async def test_unknown_endpoint(adapter: RunningAdapter) -> None:
    """An endpoint that this version does not know is refused, and nobody is asked."""
    _, error = await adapter.failing("instant", endpoint=Endpoint(99))
    assert (type(error), error.param) == (InvalidRequest, "endpoint")
    assert adapter.provider.seen == []


async def embedded(adapter: RunningAdapter, model: str = "instant", **asked: Any) -> EmbedResponse:
    body = json.dumps({"model": model, "input": ["one text", "another"], **asked}).encode()
    request = EmbedRequest(provider="fake", body=body, request_id="req-1")
    async with asyncio.timeout(SOON_S):
        return await adapter.client.embed(request)


async def not_embedded(adapter: RunningAdapter, model: str) -> WeirError:
    with pytest.raises(WeirError) as caught:
        await embedded(adapter, model)
    return caught.value


async def test_embeddings(adapter: RunningAdapter) -> None:
    """Vectors come back as sent, less the provider's own name, with usage and model."""
    answer = await embedded(adapter)
    sent = json.loads(answer.body)
    assert [item["embedding"] for item in sent["data"]] == [vector("one text"), vector("another")]
    assert "provider" not in sent
    assert (answer.usage, answer.model) == (Usage(input_tokens=3), "instant")
    seen = adapter.provider.seen[0]
    assert (seen.path, seen.headers["x-request-id"]) == ("/v1/embeddings", "req-1")
    assert seen.headers["authorization"] == f"Bearer {SECRET}"


async def test_embeddings_in_base64(adapter: RunningAdapter) -> None:
    """base64 goes through as it is, and holds the same numbers."""
    sent = json.loads((await embedded(adapter, encoding_format="base64", dimensions=4)).body)
    packed = base64.b64decode(sent["data"][1]["embedding"])
    assert list(struct.unpack("<4f", packed)) == vector("another", 4)


@pytest.mark.parametrize(("model", "kind", "status"), REFUSED)
async def test_refused_embeddings(
    adapter: RunningAdapter, model: str, kind: type[WeirError], status: str
) -> None:
    """Embeddings fail like everything else."""
    error = await not_embedded(adapter, model)
    assert type(error) is kind
    assert (error.details["delivered"], error.details["status"]) == ("false", status)
    assert "sk-test" not in error.message


async def test_broken_embeddings(adapter: RunningAdapter) -> None:
    """Cut in the middle, too large, a reset: an upstream error, and only a reset may be asked again."""
    cut, huge, reset = [await not_embedded(adapter, model) for model in ("cut", "huge_answer", "reset")]
    assert {type(error) for error in (cut, huge, reset)} == {UpstreamError}
    assert (cut.details["status"], huge.details["status"]) == ("200", "200")
    assert reset.details == {"delivered": "false", "sent": "true"}


async def test_embeddings_of_an_unknown_provider(adapter: RunningAdapter) -> None:
    """A provider that is not configured was asked nothing."""
    with pytest.raises(NoHealthyTarget) as caught:
        await adapter.client.embed(EmbedRequest(provider="other", body=b"{}"))
    assert caught.value.details == {"delivered": "false", "sent": "false"}


async def test_embeddings_are_counted(adapter: RunningAdapter) -> None:
    """Answers of either RPC are counted together."""
    await embedded(adapter)
    await not_embedded(adapter, "rate_limit")
    whole = {"provider": "fake", "outcome": "whole"}
    limited = {"provider": "fake", "outcome": "rate_limited"}
    assert adapter.registry.get_sample_value("weir_cloud_answers_total", whole) == 1
    assert adapter.registry.get_sample_value("weir_cloud_answers_total", limited) == 1


async def test_cancelled_embeddings_reach_the_provider(adapter: RunningAdapter) -> None:
    """A caller that leaves ends the provider's request within a second."""
    reading = asyncio.create_task(embedded(adapter, "silent"))
    seen = await asyncio.wait_for(adapter.provider.request(), SOON_S)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await asyncio.wait_for(seen.gone.wait(), 1.0)


async def test_request_without_endpoint_is_a_chat(adapter: RunningAdapter) -> None:
    """Callers that know no endpoints get chat completions, as before."""
    request = GenerateRequest(provider="fake", body=b'{"model":"instant"}')
    assert (await anext(adapter.client.generate(request))).finished
    assert adapter.provider.seen[0].path == "/v1/chat/completions"


FAILING = (
    "rate_limit", "quota", "status:code=500", "bad_param", "context_length", "content_filter", "redirect", "reset",
    "not_http", "cut", "early_end", "error_event", "empty_stream", "error_body", "html", "empty", "no_choices",
    "huge_answer", "huge_event", "bad_gzip", "cut:after=0", "error_event:after=0",
)  # fmt: skip


@pytest.mark.parametrize("model", FAILING)
async def test_every_failure_says_how_far_it_came(adapter: RunningAdapter, model: str) -> None:
    """The router can tell what never left, what was answered with which status, and what broke before an answer."""
    failures = 0
    for endpoint in ENDPOINTS.values():
        for stream in (False, True):
            try:
                responses = await adapter.ask(model, stream=stream, endpoint=endpoint)
            except WeirError as error:
                failures, told = failures + 1, error.details
                assert told["delivered"] in {"true", "false"}
                assert ("status" in told) != ("sent" in told)
                assert told.get("sent", "true") == "true"  # it reached the provider each time
                assert told["delivered"] == "false" or told["status"] == "200"
            else:
                assert responses[-1].finished  # not every fault is one for every endpoint
    assert failures
