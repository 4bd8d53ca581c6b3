"""The targets of a configuration: those that stay keep what they hold, new ones are waited for, old ones are closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from gen.weir.cloud.v1 import (
    EmbedRequest,
    EmbedResponse,
    GenerateRequest,
    GenerateResponse,
    ListProvidersRequest,
    ListProvidersResponse,
    Provider,
)
from gen.weir.cloud.v1.service import CloudAdapterClient, CloudAdapterServicer
from meshkit.inprocess import InProcessTransport
from meshkit.telemetry import Logger
from services.router.adapters import target_set
from services.router.adapters.target_set import HeldTarget, TargetMaker, Watch
from services.router.target_settings import TargetSettings
from tests.fakes.triton import FakeTriton
from tests.fakes.triton_target import ask

WITHIN_S = 10.0
SETTINGS: TypeAdapter[TargetSettings] = TypeAdapter(TargetSettings)


class Providers(CloudAdapterServicer):
    """An adapter that lists what it is told to, after so many questions."""

    def __init__(self) -> None:
        self.after = 0
        self.asked = 0

    def generate(self, request: GenerateRequest, context: Any) -> AsyncIterator[GenerateResponse]:
        raise NotImplementedError

    async def embed(self, request: EmbedRequest, context: Any) -> EmbedResponse:
        raise NotImplementedError

    async def list_providers(self, request: ListProvidersRequest, context: Any) -> ListProvidersResponse:
        self.asked += 1
        names = ["p"] if self.asked > self.after else []
        return ListProvidersResponse(providers=[Provider(name=name, usable=True) for name in names])


@pytest.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    """With one model."""
    async with FakeTriton() as running:
        yield running


@pytest.fixture
def providers() -> Providers:
    """The adapter."""
    return Providers()


@pytest.fixture
def maker(providers: Providers) -> TargetMaker:
    """Of targets that are probed often."""
    client = CloudAdapterClient(InProcessTransport(providers, Logger("test")))
    return TargetMaker(client, "127.0.0.1:1", timedelta(seconds=0.5))


def _configured(**blocks: dict[str, Any]) -> dict[str, TargetSettings]:
    return {name: SETTINGS.validate_python(block) for name, block in blocks.items()}


def _local(triton: FakeTriton, **more: Any) -> dict[str, Any]:
    return {"kind": "triton", "endpoint": triton.address, **more}


CLOUD: dict[str, Any] = {"kind": "cloud", "provider": "p", "model": "m"}


async def _close(*sets: dict[str, HeldTarget]) -> None:
    for held in {id(held): held for one in sets for held in one.values()}.values():
        await held.close()


async def test_what_did_not_change_stays(maker: TargetMaker, triton: FakeTriton) -> None:
    """By its settings, whatever the others do; what changed is another target."""
    first = maker.made(_configured(a=_local(triton), b=_local(triton), c=CLOUD), {})
    second = maker.made(_configured(a=_local(triton), b=_local(triton, hedge=True), d=CLOUD), first)
    assert second["a"] is first["a"]
    assert second["b"] is not first["b"]
    assert set(second) == {"a", "b", "d"}
    await _close(first, second)


async def test_new_targets_are_waited_for(
    maker: TargetMaker, providers: Providers, triton: FakeTriton
) -> None:
    """A provider that the adapter does not know yet is asked for again until it is there."""
    providers.after = 2
    made = maker.made(_configured(a=_local(triton), c=CLOUD), {})
    maker.follow_providers(made)
    async with asyncio.timeout(WITHIN_S):
        await maker.until_up(list(made.values()))
    assert all(held.target.is_up() for held in made.values())
    assert providers.asked == 3
    await _close(made)


async def test_the_wait_has_an_end(
    maker: TargetMaker, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not come up keeps nothing from being taken over; none at all is not waited for."""
    monkeypatch.setattr(target_set, "UP_WITHIN_S", 0.0)
    providers.after = 1_000
    made = maker.made(_configured(c=CLOUD), {})
    maker.follow_providers(made)
    async with asyncio.timeout(WITHIN_S):
        await maker.until_up(list(made.values()))
    asked = providers.asked
    await maker.until_up([])
    assert not made["c"].target.is_up()
    assert providers.asked == asked


async def test_probes_run_until_it_is_closed(maker: TargetMaker, triton: FakeTriton) -> None:
    """Once, however often it is followed; afterwards it asks nothing any more."""
    made = maker.made(_configured(a=_local(triton)), {})
    running: list[Watch] = []

    async def kept_up(watch: Watch) -> None:
        running.append(watch)
        try:
            await asyncio.Event().wait()
        finally:
            running.remove(watch)

    for _ in range(2):
        made["a"].follow(kept_up)
        await asyncio.sleep(0)  # one turn of the loop, in which it begins
    assert len(running) == 1
    await maker.probe(list(made.values()))
    assert made["a"].target.is_up()
    await made["a"].close()
    assert running == []
    with pytest.raises(Exception, match=r"[Cc]lose"):
        await anext(made["a"].target.generate(ask(), "req", stream=True))
