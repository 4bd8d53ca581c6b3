"""How answers of a provider end before their time: broken, cancelled, held back; and what is counted and kept."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from meshkit.errors import UpstreamError, UpstreamTimeout, UpstreamTruncated
from tests.fakes.provider import FakeProvider
from tests.fakes.provider_exchange import words
from tests.fakes.running_adapter import SECRET, SOON_S, RunningAdapter, running_adapter, text_of


@pytest.fixture(params=["separate", "compact"])
async def adapter(request: pytest.FixtureRequest) -> AsyncIterator[RunningAdapter]:
    """The same adapter behind a socket and in this process."""
    with tempfile.TemporaryDirectory(prefix="weir-cloud-") as folder:
        async with (
            FakeProvider() as provider,
            running_adapter(provider, Path(folder), in_process=request.param == "compact") as running,
        ):
            yield running


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("model", ["reset", "not_http"])
async def test_connection_broken_before_an_answer(
    adapter: RunningAdapter, model: str, *, stream: bool
) -> None:
    """A reset before the headers is an upstream error, and may have cost money."""
    heard, error = await adapter.failing(model, stream=stream)
    assert (heard, type(error)) == ([], UpstreamError)
    assert (error.details["delivered"], error.details["sent"]) == ("false", "true")


@pytest.mark.parametrize("model", ["cut", "early_end", "error_event"])
async def test_stream_broken_after_text(adapter: RunningAdapter, model: str) -> None:
    """What arrived is delivered, nothing says finished, and the error says that text was delivered."""
    heard, error = await adapter.failing(f"{model}:after=40", stream=True)
    assert text_of(heard) == "".join(words(40))
    assert not any(response.finished or response.finish_reason for response in heard)
    assert (type(error), error.details["delivered"]) == (UpstreamTruncated, "true")
    assert "sk-test" not in error.message


async def test_error_event_names_its_cause(adapter: RunningAdapter) -> None:
    """The provider's message reaches caller and log, without the secret that it quotes."""
    _, error = await adapter.failing("error_event:after=2", stream=True)
    assert "The server had an error" in error.message
    assert "[redacted]" in error.message
    log = adapter.log.read_text()
    assert "The server had an error" in log
    assert "sk-test" not in log


async def test_cut_after_the_finish_reason(adapter: RunningAdapter) -> None:
    """Without [DONE] only a clean end makes a stream whole."""
    heard, error = await adapter.failing("no_done_cut", stream=True)
    assert type(error) is UpstreamTruncated
    assert not any(response.finished for response in heard)


@pytest.mark.parametrize("model", ["cut:after=0", "early_end:after=0", "error_event:after=0"])
async def test_stream_broken_before_text(adapter: RunningAdapter, model: str) -> None:
    """A stream that breaks before its first token is an upstream error: another target may start afresh."""
    heard, error = await adapter.failing(model, stream=True)
    assert (text_of(heard), type(error), error.details["delivered"]) == ("", UpstreamError, "false")


async def test_faults_are_asked_once(adapter: RunningAdapter) -> None:
    """The adapter never retries: an attempt that may have cost money is the router's to repeat."""
    for model in ("status:code=500", "rate_limit", "reset", "status:code=408"):
        await adapter.failing(model)
    assert len(adapter.provider.seen) == 4


@pytest.mark.parametrize("model", ["instant:gap_ms=60000", "stall:after=3", "silent", "late"])
async def test_cancelling_reaches_the_provider(adapter: RunningAdapter, model: str) -> None:
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


async def test_cancelling_a_unary_call_reaches_the_provider(adapter: RunningAdapter) -> None:
    """So with a call that waits for a whole answer."""
    reading = asyncio.create_task(adapter.ask("silent"))
    seen = await asyncio.wait_for(adapter.provider.request(), SOON_S)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await asyncio.wait_for(seen.gone.wait(), 1.0)


async def test_deadline_reaches_the_provider(adapter: RunningAdapter) -> None:
    """A call whose time is up ends the provider's too."""
    responses = adapter.client.generate(adapter.request("silent"), timeout=timedelta(seconds=0.3))
    with pytest.raises(UpstreamTimeout):
        await asyncio.wait_for(anext(responses), SOON_S)
    await asyncio.wait_for(adapter.provider.seen[0].gone.wait(), 1.0)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_connections_are_kept(adapter: RunningAdapter, *, stream: bool) -> None:
    """Whole answers leave their connection for the next question."""
    for _ in range(3):
        await adapter.ask("instant", stream=stream)
    assert {seen.connection for seen in adapter.provider.seen} == {0}


async def test_slow_reader_holds_the_provider_back(adapter: RunningAdapter) -> None:
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


async def test_metrics_tell_how_answers_ended(adapter: RunningAdapter) -> None:
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


async def test_secret_is_nowhere_in_the_log(adapter: RunningAdapter) -> None:
    """Whatever fails, neither the secret nor the prompt is logged."""
    for model in ("status:code=500", "status:code=401", "bad_param", "error_event"):
        await adapter.failing(model, stream=True)
    log = adapter.log.read_text()
    assert "provider failed" in log
    assert SECRET[:8] not in log
    assert "temperature is too high" not in log
