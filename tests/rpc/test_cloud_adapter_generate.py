"""CloudAdapter/Generate as the router sees it: a real server, or inside its process; a provider that misbehaves."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gen.rpc import Transport
from gen.weir.cloud.v1 import GenerateRequest, GenerateResponse, ListProvidersRequest
from gen.weir.cloud.v1.service import CloudAdapterClient
from gen.weir.type.v1 import FinishReason, Usage
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import (
    ContentFiltered,
    ContextTooLong,
    InvalidRequest,
    NoHealthyTarget,
    RateLimited,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTruncated,
    WeirError,
)
from meshkit.inprocess import InProcessTransport
from meshkit.server import MeshServer
from meshkit.settings import Listen
from meshkit.telemetry import Logger
from services.cloud_adapter.bootstrap import build
from services.cloud_adapter.settings import CloudAdapterSettings
from tests.fakes.provider import FakeProvider
from tests.fakes.provider_exchange import words

SECRET = "sk-test-1234567890abcdef"
SOON_S = 20.0
TEXT_60 = "".join(words(60))


@dataclass
class Adapter:
    """A cloud adapter and the provider behind it."""

    client: CloudAdapterClient
    provider: FakeProvider
    registry: CollectorRegistry
    log: Path

    def request(self, model: str, *, stream: bool = False, **changes: Any) -> GenerateRequest:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": "hi"}],
            "stream": stream,
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        known: dict[str, Any] = {"provider": "fake", "body": json.dumps(body).encode(), "stream": stream}
        return GenerateRequest(**known | {"request_id": "req-1", **changes})

    def open(self, model: str, *, stream: bool = False, **changes: Any) -> AsyncGenerator[GenerateResponse]:
        return self.client.generate(self.request(model, stream=stream, **changes))

    async def ask(self, model: str, *, stream: bool = False, **changes: Any) -> list[GenerateResponse]:
        async with asyncio.timeout(SOON_S), aclosing(self.open(model, stream=stream, **changes)) as responses:
            return [response async for response in responses]

    async def failing(
        self, model: str, *, stream: bool = False, **changes: Any
    ) -> tuple[list[GenerateResponse], WeirError]:
        """The responses before the error, and the error."""
        heard: list[GenerateResponse] = []
        with pytest.raises(WeirError) as caught:
            async with (
                asyncio.timeout(SOON_S),
                aclosing(self.open(model, stream=stream, **changes)) as responses,
            ):
                async for response in responses:
                    heard.append(response)  # noqa: PERF401 - what came before the error counts
        return heard, caught.value


def text_of(responses: list[GenerateResponse]) -> str:
    return "".join(response.text for response in responses)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: sockets' names are limited to 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="weir-cloud-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as running:
        yield running


def settings_for(base_url: str, folder: Path, **more: Any) -> CloudAdapterSettings:
    key_file = folder / "key"
    key_file.write_text(f"{SECRET}\n")
    key_file.chmod(0o600)
    fake = {
        "base_url": base_url,
        "api_key_file": key_file,
        "max_event_bytes": 1 << 20,
        "organization": "org-7",
    }
    return CloudAdapterSettings.model_validate({"providers": {"fake": fake, **more}})


@pytest.fixture(params=["separate", "compact"])
async def adapter(
    request: pytest.FixtureRequest, provider: FakeProvider, folder: Path
) -> AsyncIterator[Adapter]:
    """The same adapter behind a socket and in this process."""
    registry = CollectorRegistry()
    async with AsyncExitStack() as exits:
        descriptor = os.open(folder / "log", os.O_CREAT | os.O_WRONLY)
        exits.callback(os.close, descriptor)
        log = Logger("cloud_adapter", descriptor)
        service = build(settings_for(provider.base_url, folder), registry, log)
        transport: Transport
        if request.param == "compact":
            await service.start()
            exits.push_async_callback(service.stop)
            transport = InProcessTransport(service.servicer, log)
        else:
            address = f"unix:{folder}/s"
            server = MeshServer(
                "cloud_adapter", service, Listen(address, "", 0, timedelta(seconds=1)), registry, log
            )
            await server.start()
            exits.push_async_callback(server.stop)
            channel = open_channel(address)
            exits.push_async_callback(channel.close)
            transport = ChannelTransport(channel, mesh_codec())
        yield Adapter(CloudAdapterClient(transport), provider, registry, folder / "log")


async def test_unary_answer(adapter: Adapter) -> None:
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


async def test_request_goes_through_unparsed(adapter: Adapter) -> None:
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
async def test_stream(adapter: Adapter, gap_ms: int) -> None:
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


async def test_hidden_usage(adapter: Adapter) -> None:
    """A client that did not ask for usage sees none of it; the router does."""
    responses = await adapter.ask("instant", stream=True, hide_stream_usage=True)
    bodies = [body for response in responses for body in response.bodies]
    assert len(bodies) == 61
    assert not [body for body in bodies if b"usage" in body]
    assert [response.usage.output_tokens for response in responses if response.usage] == [60]


@pytest.mark.parametrize(
    "model", ["no_done", "crlf", "malformed", "comments:comments=2", "no_usage", "done_hangs"]
)
async def test_odd_streams_are_whole(adapter: Adapter, model: str) -> None:
    """No [DONE], CRLF in scraps, a malformed event, comments, no usage, a connection left open: all is delivered."""
    responses = await adapter.ask(model, stream=True)
    assert text_of(responses) == TEXT_60
    assert responses[-1].finished
    assert sum(response.malformed_events for response in responses) == (1 if model == "malformed" else 0)


async def test_comment_reaches_the_caller_as_a_sign_of_life(adapter: Adapter) -> None:
    """A comment before the first token becomes an empty response at once."""
    async with (
        asyncio.timeout(SOON_S),
        aclosing(adapter.open("comments:gap_ms=60000", stream=True)) as responses,
    ):
        assert await anext(responses) == GenerateResponse()


async def test_tool_call(adapter: Adapter) -> None:
    """A tool call is announced from its first part on."""
    responses = await adapter.ask("tool_call", stream=True)
    assert responses[0].tool_call_begun
    assert responses[-1].tool_call_begun
    assert {response.finish_reason for response in responses} >= {FinishReason.TOOL_CALLS}


async def test_gzip_nobody_asked_for_is_read(adapter: Adapter) -> None:
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
    adapter: Adapter, model: str, kind: type[WeirError], status: str, *, stream: bool
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
async def test_unusable_answers(adapter: Adapter, model: str, *, stream: bool) -> None:
    """No choice, too much, cut in the middle, nothing but [DONE]: an upstream error, and nothing was delivered."""
    heard, error = await adapter.failing(model, stream=stream)
    assert (heard, type(error), error.details["delivered"]) == ([], UpstreamError, "false")


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("model", ["reset", "not_http"])
async def test_connection_broken_before_an_answer(adapter: Adapter, model: str, *, stream: bool) -> None:
    """A reset before the headers is an upstream error, and may have cost money."""
    heard, error = await adapter.failing(model, stream=stream)
    assert (heard, type(error)) == ([], UpstreamError)
    assert (error.details["delivered"], error.details["sent"]) == ("false", "true")


@pytest.mark.parametrize("model", ["cut", "early_end", "error_event"])
async def test_stream_broken_after_text(adapter: Adapter, model: str) -> None:
    """What arrived is delivered, nothing says finished, and the error says that text was delivered."""
    heard, error = await adapter.failing(f"{model}:after=40", stream=True)
    assert text_of(heard) == "".join(words(40))
    assert not any(response.finished or response.finish_reason for response in heard)
    assert (type(error), error.details["delivered"]) == (UpstreamTruncated, "true")
    assert "sk-test" not in error.message


async def test_error_event_names_its_cause(adapter: Adapter) -> None:
    """The provider's message reaches caller and log, without the secret that it quotes."""
    _, error = await adapter.failing("error_event:after=2", stream=True)
    assert "The server had an error" in error.message
    assert "[redacted]" in error.message
    log = adapter.log.read_text()
    assert "The server had an error" in log
    assert "sk-test" not in log


async def test_cut_after_the_finish_reason(adapter: Adapter) -> None:
    """Without [DONE] only a clean end makes a stream whole."""
    heard, error = await adapter.failing("no_done_cut", stream=True)
    assert type(error) is UpstreamTruncated
    assert not any(response.finished for response in heard)


@pytest.mark.parametrize("model", ["cut:after=0", "early_end:after=0", "error_event:after=0"])
async def test_stream_broken_before_text(adapter: Adapter, model: str) -> None:
    """A stream that breaks before its first token is an upstream error: another target may start afresh."""
    heard, error = await adapter.failing(model, stream=True)
    assert (text_of(heard), type(error), error.details["delivered"]) == ("", UpstreamError, "false")


async def test_retry_after(adapter: Adapter) -> None:
    """The provider's wait is told where it names one."""
    _, told = await adapter.failing("rate_limit:retry_after_s=2")
    _, silent = await adapter.failing("rate_limit")
    assert (told.retry_after, silent.retry_after) == (timedelta(seconds=2), None)


async def test_param_is_kept(adapter: Adapter) -> None:
    """The field that the provider names reaches the client, with its words."""
    _, error = await adapter.failing("bad_param")
    assert (error.param, error.message) == ("temperature", "temperature is too high")


async def test_unknown_model_is_named(adapter: Adapter) -> None:
    """A model that the provider does not have is named, in an error that is not the client's."""
    _, error = await adapter.failing("status:code=404")
    assert "'status:code=404'" in error.message


async def test_faults_are_asked_once(adapter: Adapter) -> None:
    """The adapter never retries: an attempt that may have cost money is the router's to repeat."""
    for model in ("status:code=500", "rate_limit", "reset", "status:code=408"):
        await adapter.failing(model)
    assert len(adapter.provider.seen) == 4


@pytest.mark.parametrize("model", ["instant:gap_ms=60000", "stall:after=3", "silent", "late"])
async def test_cancelling_reaches_the_provider(adapter: Adapter, model: str) -> None:
    """The provider sees the connection close within a second, before the first token as well as after it."""
    responses = adapter.open(model, stream=True)
    reading = asyncio.create_task(anext(responses))
    seen = await asyncio.wait_for(adapter.provider.request(), SOON_S)
    if model in {"instant:gap_ms=60000", "stall:after=3"}:
        assert (await asyncio.wait_for(reading, SOON_S)).text
    else:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await responses.aclose()
    await asyncio.wait_for(seen.gone.wait(), 1.0)


async def test_cancelling_a_unary_call_reaches_the_provider(adapter: Adapter) -> None:
    """So with a call that waits for a whole answer."""
    reading = asyncio.create_task(adapter.ask("silent"))
    seen = await asyncio.wait_for(adapter.provider.request(), SOON_S)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await asyncio.wait_for(seen.gone.wait(), 1.0)


async def test_deadline_reaches_the_provider(adapter: Adapter) -> None:
    """A call whose time is up ends the provider's too."""
    responses = adapter.client.generate(adapter.request("silent"), timeout=timedelta(seconds=0.3))
    with pytest.raises(UpstreamTimeout):
        await asyncio.wait_for(anext(responses), SOON_S)
    await asyncio.wait_for(adapter.provider.seen[0].gone.wait(), 1.0)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_connections_are_kept(adapter: Adapter, *, stream: bool) -> None:
    """Whole answers leave their connection for the next question."""
    for _ in range(3):
        await adapter.ask("instant", stream=stream)
    assert {seen.connection for seen in adapter.provider.seen} == {0}


async def test_slow_reader_holds_the_provider_back(adapter: Adapter) -> None:
    """A caller that reads nothing more stops the provider long before its 64 MiB are out; nothing is lost."""
    async with aclosing(adapter.open("flood:mib=64", stream=True)) as responses:
        first = await asyncio.wait_for(anext(responses), SOON_S)
        seen = adapter.provider.seen[0]
        written = -1
        while written != seen.written:  # until the provider can write no more
            written = seen.written
            await asyncio.sleep(0.3)  # that nothing more happens can only be seen by waiting
        assert not seen.answered
        rest = [len(response.text) async for response in responses]
    assert len(first.text) + sum(rest) == 64 << 20


async def test_metrics_tell_how_answers_ended(adapter: Adapter) -> None:
    """Each outcome is counted for its provider; a name that is not configured makes no series of its own."""
    await adapter.ask("malformed", stream=True)
    await adapter.failing("cut", stream=True)
    await adapter.failing("instant", provider="made-up")

    def value(name: str, **labels: str) -> float | None:
        return adapter.registry.get_sample_value(name, labels)

    assert value("weir_cloud_answers_total", provider="fake", outcome="whole") == 1
    assert value("weir_cloud_answers_total", provider="fake", outcome="upstream_truncated") == 1
    assert value("weir_cloud_answers_total", provider="unknown", outcome="no_healthy_target") == 1
    assert value("weir_cloud_malformed_events_total", provider="fake") == 1


async def test_secret_is_nowhere_in_the_log(adapter: Adapter) -> None:
    """Whatever fails, neither the secret nor the prompt is logged."""
    for model in ("status:code=500", "status:code=401", "bad_param", "error_event"):
        await adapter.failing(model, stream=True)
    log = adapter.log.read_text()
    assert "provider failed" in log
    assert SECRET[:8] not in log
    assert "temperature is too high" not in log


async def test_providers_are_listed(adapter: Adapter) -> None:
    """As configured, without the secret."""
    answer = await adapter.client.list_providers(ListProvidersRequest())
    (listed,) = answer.providers
    assert (listed.name, listed.base_url, listed.usable) == ("fake", adapter.provider.base_url, True)
    assert (listed.sandbox, listed.problem) == (False, "")


async def test_unknown_provider(adapter: Adapter) -> None:
    """A provider that is not configured is no healthy target; nobody is asked."""
    _, error = await adapter.failing("instant", provider="other")
    assert type(error) is NoHealthyTarget
    assert adapter.provider.seen == []

