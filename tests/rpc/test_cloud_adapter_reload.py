"""Providers are exchanged while the adapter answers: secrets too, and what runs ends where it began."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gen.weir.cloud.v1 import GenerateRequest, ListProvidersRequest
from gen.weir.cloud.v1.service import CloudAdapterClient
from meshkit.errors import NoHealthyTarget
from meshkit.inprocess import InProcessTransport
from meshkit.telemetry import Logger
from services.cloud_adapter.adapters import provider_set
from services.cloud_adapter.bootstrap import Service, World, build
from services.cloud_adapter.settings import CloudAdapterSettings
from tests.fakes.provider import FakeProvider

SOON_S = 20.0


class Adapter:
    """A cloud adapter whose settings change."""

    def __init__(self, log_path: Path) -> None:
        self._descriptor = os.open(log_path, os.O_CREAT | os.O_WRONLY)
        log = Logger("cloud_adapter", self._descriptor)
        self.service: Service = build(_settings(), CollectorRegistry(), log, World({"KEY": "sk-environment"}))
        self.client = CloudAdapterClient(InProcessTransport(self.service.servicer, log))

    async def change(self, **providers: dict[str, Any]) -> None:
        """As a changed weir.yaml does it."""
        await (await self.service.prepare(_settings(**providers)))()

    async def ask(self, provider: str, model: str = "instant", *, stream: bool = False) -> list[str]:
        """Texts of the answer."""
        body = b'{"model":"%b","stream":%b}' % (model.encode(), b"true" if stream else b"false")
        request = GenerateRequest(provider=provider, body=body, stream=stream)
        async with asyncio.timeout(SOON_S), aclosing(self.client.generate(request)) as pieces:
            return [piece.text async for piece in pieces]

    async def listed(self) -> list[str]:
        """Names."""
        return [one.name for one in (await self.client.list_providers(ListProvidersRequest())).providers]

    async def stop(self) -> None:
        """Ends it."""
        await self.service.stop()
        os.close(self._descriptor)


def _settings(**providers: dict[str, Any]) -> CloudAdapterSettings:
    return CloudAdapterSettings.model_validate({"providers": providers})


@pytest.fixture
async def adapter(tmp_path: Path) -> AsyncIterator[Adapter]:
    """Without providers."""
    running = Adapter(tmp_path / "log")
    await running.service.start()
    yield running
    await running.stop()


@pytest.fixture
async def first() -> AsyncIterator[FakeProvider]:
    """A provider."""
    async with FakeProvider() as running:
        yield running


@pytest.fixture
async def second() -> AsyncIterator[FakeProvider]:
    """Another one."""
    async with FakeProvider() as running:
        yield running


async def test_a_provider_comes_and_moves(
    adapter: Adapter, first: FakeProvider, second: FakeProvider
) -> None:
    """It is asked as soon as it is there, and at its new address as soon as it has one."""
    with pytest.raises(NoHealthyTarget):
        await adapter.ask("p")
    await adapter.change(p={"base_url": first.base_url, "api_key_env": "KEY"})
    assert await adapter.ask("p")
    assert await adapter.listed() == ["p"]
    await adapter.change(p={"base_url": second.base_url, "api_key_env": "KEY"})
    assert await adapter.ask("p")
    assert (len(first.seen), len(second.seen)) == (1, 1)


async def test_what_runs_ends_where_it_began(
    adapter: Adapter, first: FakeProvider, second: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection stays until its answer is whole; then it goes."""
    monkeypatch.setattr(provider_set, "ASKED_STILL_S", 0.0)
    await adapter.change(p={"base_url": first.base_url, "api_key_env": "KEY"})
    answer = asyncio.create_task(adapter.ask("p", "instant:chunks=10,gap_ms=50", stream=True))
    async with asyncio.timeout(SOON_S):
        while not first.seen:  # noqa: ASYNC110 - the fake tells nobody that it was asked
            await asyncio.sleep(0.01)
    await adapter.change(p={"base_url": second.base_url, "api_key_env": "KEY"})
    assert "".join(await answer).strip()
    async with asyncio.timeout(SOON_S):
        await asyncio.gather(*adapter.service._providers._retiring)
    assert len(second.seen) == 0


async def test_one_that_left_is_found_for_a_while(
    adapter: Adapter, first: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed no more, so routers learn of it; until they have, their requests are answered."""
    await adapter.change(p={"base_url": first.base_url, "api_key_env": "KEY"})
    await adapter.change()
    assert await adapter.listed() == []
    assert await adapter.ask("p")
    monkeypatch.setattr(provider_set, "ASKED_STILL_S", 0.0)
    await adapter.change(p={"base_url": first.base_url, "api_key_env": "KEY"})
    await adapter.change()
    async with asyncio.timeout(SOON_S):
        await asyncio.wait(adapter.service._providers._retiring, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(NoHealthyTarget):
        await adapter.ask("p")


async def test_unchanged_providers_stay_and_new_secrets_count(
    adapter: Adapter, first: FakeProvider, tmp_path: Path
) -> None:
    """The same settings and secrets: the same connections. A key's file with another key: the next request shows it."""
    secret = tmp_path / "secret"
    secret.write_text("sk-one-0123456789", encoding="utf-8")
    settings = {"base_url": first.base_url, "api_key_file": str(secret)}
    await adapter.change(p=settings)
    before = adapter.service._providers["p"]
    await adapter.change(p=settings)
    assert adapter.service._providers["p"] is before
    secret.write_text("sk-two-0123456789", encoding="utf-8")
    await adapter.change(p=settings)
    assert adapter.service._providers["p"] is not before
    first.key_behaviours = {"sk-two-0123456789": "instant", "sk-one-0123456789": "status:code=401"}
    assert await adapter.ask("p")
