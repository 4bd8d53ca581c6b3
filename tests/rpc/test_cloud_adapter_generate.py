"""CloudAdapter/Generate as the router sees it: answers, and what becomes of refusals."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from gen.weir.cloud.v1 import GenerateResponse, ListProvidersRequest
from gen.weir.type.v1 import FinishReason, Usage
from meshkit.errors import (
    ContentFiltered,
    ContextTooLong,
    InvalidRequest,
    NoHealthyTarget,
    RateLimited,
    UpstreamError,
    UpstreamTimeout,
    WeirError,
)
from tests.fakes.provider import FakeProvider
from tests.fakes.provider_exchange import words
from tests.fakes.running_adapter import SECRET, SOON_S, RunningAdapter, running_adapter, text_of

TEXT_60 = "".join(words(60))


@pytest.fixture(params=["separate", "compact"])
async def adapter(request: pytest.FixtureRequest) -> AsyncIterator[RunningAdapter]:
    """The same adapter behind a socket and in this process."""
    with tempfile.TemporaryDirectory(prefix="weir-cloud-") as folder:
        async with (
            FakeProvider() as provider,
            running_adapter(provider, Path(folder), in_process=request.param == "compact") as running,
        ):
            yield running


async def test_unary_answer(adapter: RunningAdapter) -> None:
    """One response with the provider's body less its `provider`, read once."""
    (response,) = await adapter.ask("instant")
    assert response.text == TEXT_60
    assert response.finish_reason == FinishReason.STOP
    assert response.usage == Usage(input_tokens=9, output_tokens=60, cached_input_tokens=4)
    assert (response.model, response.finished) == ("instant", True)
    (body,) = response.bodies
    sent = json.loads(body)
    assert "provider" not in sent
    assert sent["choices"][0]["message"]["content"] == TEXT_60


async def test_request_goes_through_unparsed(adapter: RunningAdapter) -> None:
    """The body arrives byte for byte, with the secret and the label, and without facts about this machine."""
    body = b'{ "model":"instant",  "x_unknown":1.0,"messages":[] }'
    await adapter.ask("", body=body)
    seen = adapter.provider.seen[0]
    assert seen.raw == body
    assert seen.headers["authorization"] == f"Bearer {SECRET}"
    assert seen.headers["x-request-id"] == "req-1"
    assert seen.headers["openai-organization"] == "org-7"
    assert seen.headers["content-type"] == "application/json"
    assert not [name for name in seen.headers if name.startswith("x-stainless")]


@pytest.mark.parametrize("gap_ms", [0, 5])
async def test_stream(adapter: RunningAdapter, gap_ms: int) -> None:
    """Every event arrives in order, joined where they waited; usage and the end are told once."""
    responses = await adapter.ask(f"instant:gap_ms={gap_ms}", stream=True)
    assert text_of(responses) == TEXT_60
    bodies = [json.loads(body) for response in responses for body in response.bodies]
    assert len(bodies) == 62  # 60 words, the end, the usage
    assert all("provider" not in body for body in bodies)
    assert [response.finished for response in responses] == [False] * (len(responses) - 1) + [True]
    assert [response.model for response in responses if response.model] == [f"instant:gap_ms={gap_ms}"]
    assert [response.usage.output_tokens for response in responses if response.usage] == [60]
    assert [response.finish_reason for response in responses if response.finish_reason] == [FinishReason.STOP]
    if gap_ms:
        assert len(responses) > 50  # nothing is held back


async def test_hidden_usage(adapter: RunningAdapter) -> None:
    """A client that did not ask for usage sees none of it; the router does."""
    responses = await adapter.ask("instant", stream=True, hide_stream_usage=True)
    bodies = [body for response in responses for body in response.bodies]
    assert len(bodies) == 61
    assert not [body for body in bodies if b"usage" in body]
    assert [response.usage.output_tokens for response in responses if response.usage] == [60]


@pytest.mark.parametrize(
    "model", ["no_done", "crlf", "malformed", "comments:comments=2", "no_usage", "done_hangs"]
)
async def test_odd_streams_are_whole(adapter: RunningAdapter, model: str) -> None:
    """No [DONE], CRLF in scraps, a malformed event, comments, no usage, a connection left open: all is delivered."""
    responses = await adapter.ask(model, stream=True)
    assert text_of(responses) == TEXT_60
    assert responses[-1].finished
    assert sum(response.malformed_events for response in responses) == (1 if model == "malformed" else 0)


async def test_comment_reaches_the_caller_as_a_sign_of_life(adapter: RunningAdapter) -> None:
    """A comment before the first token becomes an empty response at once."""
    async with (
        asyncio.timeout(SOON_S),
        aclosing(adapter.open("comments:gap_ms=60000", stream=True)) as responses,
    ):
        assert await anext(responses) == GenerateResponse()


async def test_tool_call(adapter: RunningAdapter) -> None:
    """A tool call is announced from its first part on."""
    responses = await adapter.ask("tool_call", stream=True)
    assert responses[0].tool_call_begun
    assert responses[-1].tool_call_begun
    assert {response.finish_reason for response in responses} >= {FinishReason.TOOL_CALLS}


async def test_gzip_nobody_asked_for_is_read(adapter: RunningAdapter) -> None:
    """A compressed answer is read all the same."""
    assert text_of(await adapter.ask("good_gzip")) == TEXT_60


@pytest.mark.parametrize(
    ("model", "kind", "status"),
    [
        ("rate_limit", RateLimited, "429"),
        ("quota", UpstreamError, "429"),
        ("status:code=500", UpstreamError, "500"),
        ("status:code=503", UpstreamError, "503"),
        ("status:code=401", UpstreamError, "401"),
        ("status:code=403", UpstreamError, "403"),
        ("status:code=404", UpstreamError, "404"),
        ("status:code=408", UpstreamTimeout, "408"),
        ("status:code=422", InvalidRequest, "422"),
        ("bad_param", InvalidRequest, "400"),
        ("context_length", ContextTooLong, "400"),
        ("content_filter", ContentFiltered, "400"),
        ("redirect", UpstreamError, "307"),
        ("error_body", RateLimited, "429"),
        ("error_body:code=502", UpstreamError, "502"),
        ("html", UpstreamError, "200"),
        ("empty", UpstreamError, "200"),
        ("bad_gzip", UpstreamError, "200"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_refusals(
    adapter: RunningAdapter, model: str, kind: type[WeirError], status: str, *, stream: bool
) -> None:
    """Each refusal is its noun, with the status for the router; nothing was delivered and nothing secret is told."""
    heard, error = await adapter.failing(model, stream=stream)
    assert (heard, type(error)) == ([], kind)
    assert (error.details["delivered"], error.details["status"]) == ("false", status)
    assert SECRET not in error.message
    assert "sk-test" not in error.message


@pytest.mark.parametrize(
    ("model", "stream"),
    [
        ("no_choices", False),
        ("huge_answer", False),
        ("cut", False),
        ("empty_stream", True),
        ("huge_event", True),
    ],
)
async def test_unusable_answers(adapter: RunningAdapter, model: str, *, stream: bool) -> None:
    """No choice, too much, cut in the middle, nothing but [DONE]: an upstream error, and nothing was delivered."""
    heard, error = await adapter.failing(model, stream=stream)
    assert (heard, type(error), error.details["delivered"]) == ([], UpstreamError, "false")


async def test_retry_after(adapter: RunningAdapter) -> None:
    """The provider's wait is told where it names one."""
    _, told = await adapter.failing("rate_limit:retry_after_s=2")
    _, silent = await adapter.failing("rate_limit")
    assert (told.retry_after, silent.retry_after) == (timedelta(seconds=2), None)


async def test_param_is_kept(adapter: RunningAdapter) -> None:
    """The field that the provider names reaches the client, with its words."""
    _, error = await adapter.failing("bad_param")
    assert (error.param, error.message) == ("temperature", "temperature is too high")


async def test_unknown_model_is_named(adapter: RunningAdapter) -> None:
    """A model that the provider does not have is named, in an error that is not the client's."""
    _, error = await adapter.failing("status:code=404")
    assert "'status:code=404'" in error.message


async def test_providers_are_listed(adapter: RunningAdapter) -> None:
    """As configured, without the secret."""
    answer = await adapter.client.list_providers(ListProvidersRequest())
    (listed,) = answer.providers
    assert (listed.name, listed.base_url, listed.usable) == ("fake", adapter.provider.base_url, True)
    assert (listed.sandbox, listed.problem) == (False, "")


async def test_unknown_provider(adapter: RunningAdapter) -> None:
    """A provider that is not configured is no healthy target; nobody is asked."""
    _, error = await adapter.failing("instant", provider="other")
    assert type(error) is NoHealthyTarget
    assert adapter.provider.seen == []
