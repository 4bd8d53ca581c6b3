"""How requests to the Triton adapter end when they end badly, and when it counts as down, over real gRPC."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from meshkit.errors import (
    ContextTooLong,
    RateLimited,
    UnsupportedParameter,
    UpstreamError,
    WeirError,
)
from tests.fakes.triton import FakeTriton, Say
from tests.fakes.triton_target import HI, ask, pieces, target

SATURATED, DOWN = {"saturated": "true"}, {"down": "true"}


@pytest.mark.parametrize(
    ("text", "kind", "details"),
    [
        ("Exceeds maximum queue size", RateLimited, SATURATED),
        ("Request timeout expired", RateLimited, SATURATED),
        ("Request for unknown model: 'x' is not found", UpstreamError, DOWN),
        ("Stub process 'x' is not healthy.", UpstreamError, DOWN),
        ("anything else", UpstreamError, {}),
        ("[request id: x] Prompt length (3000) exceeds maximum input length (2048).", ContextTooLong, {}),
        ("guided_decoding_guide: minItems is over 10000", UnsupportedParameter, {}),
    ],
)
async def test_in_band_errors(text: str, kind: type[WeirError], details: dict[str, str]) -> None:
    """Triton reports errors as text without a code; the text decides, also on what the breaker makes of it."""
    async with FakeTriton([Say(error=text)]) as fake:
        with pytest.raises(kind) as raised:
            await pieces(fake, ask())
    assert raised.value.details == details


async def test_refused_connection_was_not_sent() -> None:
    """A server that is not there fails the attempt at once, and nothing can have been paid."""
    async with FakeTriton(HI) as fake:
        address = fake.address
    gone = FakeTriton(HI, address=address)
    with pytest.raises(UpstreamError) as raised:
        await pieces(gone, ask())
    assert raised.value.details == {"sent": "false"}


async def test_broken_connection_may_have_been_sent() -> None:
    """What broke in mid-answer is no refusal."""
    async with (
        FakeTriton([HI[0], Say(hang=True)]) as fake,
        target(fake) as local,
        aclosing(local.generate(ask(), "req_1", stream=True)) as answer,
    ):
        await anext(answer)
        await fake.stop()
        with pytest.raises(UpstreamError) as raised:
            await anext(answer)
    assert raised.value.details == {}


async def test_closing_the_answer_cancels_upstream() -> None:
    """The model stops within a second when nobody reads any more."""
    async with FakeTriton([HI[0], Say(hang=True)]) as fake, target(fake) as local:
        async with aclosing(local.generate(ask(), "req_1", stream=True)) as answer:
            await anext(answer)
        async with asyncio.timeout(1):
            await fake.cancelled.wait()


async def test_readiness_is_followed() -> None:
    """A target is up while its model is ready, and down soon after it is not; a dead stub's text counts at once."""
    async with FakeTriton([Say(error="Stub process is not healthy")]) as fake, target(fake) as local:
        watch = asyncio.create_task(local.watch())
        async with asyncio.timeout(2):
            while not local.is_up():  # noqa: ASYNC110 - plain state of another task
                await asyncio.sleep(0.01)
        watch.cancel()
        with pytest.raises(UpstreamError):
            async with aclosing(local.generate(ask(), "req_1", stream=True)) as answer:
                await anext(answer)
        assert not local.is_up()
        await local.probe()
        assert local.is_up()
        fake.ready = False
        await local.probe()
        assert not local.is_up()


async def test_one_missed_probe_is_forgiven() -> None:
    """A busy machine misses one now and then; two in a row count, and a refused connection counts at once."""
    async with FakeTriton(HI) as fake, target(fake) as local:
        await local.probe()
        fake.silent = True
        await local.probe()
        assert local.is_up()
        await local.probe()
        assert not local.is_up()
        fake.silent = False
        await local.probe()
        assert local.is_up()
        await fake.stop()
        await local.probe()
        assert not local.is_up()


async def test_missed_probes_do_not_bring_it_up() -> None:
    """Silence is no proof of life for a target that was down."""
    async with FakeTriton(HI, silent=True) as fake, target(fake) as local:
        await local.probe()
        assert not local.is_up()


async def test_refused_request_counts_before_the_next_probe() -> None:
    """A request that met no server says so."""
    async with FakeTriton(HI) as fake, target(fake) as local:
        await local.probe()
        assert local.is_up()
        await fake.stop()
        for _ in range(2):  # the first may still find the old connection closing
            with pytest.raises(UpstreamError):
                async with aclosing(local.generate(ask(), "req_1", stream=True)) as answer:
                    await anext(answer)
        assert not local.is_up()
