"""Several keys of one provider: requests are spread by weight, and refused keys are left alone."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from gen.weir.cloud.v1 import EmbedRequest, GenerateRequest, ListProvidersRequest
from gen.weir.cloud.v1.service import CloudAdapterClient
from meshkit.errors import RateLimited, UpstreamError, WeirError
from services.cloud_adapter.bootstrap import World
from tests.fakes.adapting import adapting
from tests.fakes.provider import FakeProvider

SOON_S = 20.0
HEAVY, LIGHT = "key-heavy-0123456789", "key-light-0123456789"
ENVIRONMENT = {"HEAVY": HEAVY, "LIGHT": LIGHT}
KEYS = [{"env": "HEAVY", "weight": 3}, {"env": "LIGHT", "weight": 1}]


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """Its keys can be made to fail."""
    async with FakeProvider() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    """The adapter's."""
    return Clock()


@pytest.fixture
async def client(provider: FakeProvider, clock: Clock, tmp_path: Path) -> AsyncIterator[CloudAdapterClient]:
    """An adapter with two keys whose draws go evenly through [0, 1)."""
    numbers = cycle(step / 8 for step in range(8))
    world = World(ENVIRONMENT, random=lambda: next(numbers), monotonic_s=clock)
    settings: dict[str, Any] = {"base_url": provider.base_url, "api_keys": KEYS}
    async with adapting(tmp_path / "log", world, several=settings) as running:
        yield running


async def ask(client: CloudAdapterClient, model: str = "instant") -> None:
    request = GenerateRequest(provider="several", body=b'{"model":"%b"}' % model.encode())
    async with asyncio.timeout(SOON_S):
        assert [response.finished async for response in client.generate(request)] == [True]


async def failing(client: CloudAdapterClient, model: str = "instant") -> WeirError:
    with pytest.raises(WeirError) as caught:
        await ask(client, model)
    return caught.value


def used(provider: FakeProvider) -> list[str]:
    """The keys of the requests so far; forgets them."""
    keys = [seen.key for seen in provider.seen]
    provider.seen.clear()
    return keys


async def test_requests_are_spread_by_weight(client: CloudAdapterClient, provider: FakeProvider) -> None:
    """Of eight requests six show the key of weight three; embeddings draw from the same keys."""
    for _ in range(4):
        await ask(client)
        await client.embed(EmbedRequest(provider="several", body=b'{"model":"instant","input":"i"}'))
    assert Counter(used(provider)) == {HEAVY: 6, LIGHT: 2}


async def test_refused_key_is_left_alone_for_a_minute(
    client: CloudAdapterClient, provider: FakeProvider, clock: Clock, tmp_path: Path
) -> None:
    """After a 401 the other key serves alone, and the log names the first; a minute later it is tried again."""
    provider.key_behaviours[HEAVY] = "status:code=401"
    error = await failing(client)
    assert (type(error), error.details["status"]) == (UpstreamError, "401")
    assert error.details["other_key"] == "true"
    assert used(provider) == [HEAVY]
    for _ in range(8):
        await ask(client)
    assert set(used(provider)) == {LIGHT}
    (told,) = (line for line in (tmp_path / "log").read_text().splitlines() if "provider key rests" in line)
    assert json.loads(told) | {
        "provider": "several",
        "key": "HEAVY",
        "status": 401,
        "rest_s": 60.0,
    } == json.loads(told)
    clock.now_s += 60
    provider.key_behaviours.clear()
    for _ in range(8):
        await ask(client)
    assert Counter(used(provider)) == {HEAVY: 6, LIGHT: 2}


async def test_limited_key_rests_as_long_as_the_provider_says(
    client: CloudAdapterClient, provider: FakeProvider, clock: Clock
) -> None:
    """A 429 sends its key alone to rest, for its retry-after."""
    provider.key_behaviours[HEAVY] = "rate_limit:retry_after_s=7"
    error = await failing(client)
    assert type(error) is RateLimited
    await ask(client)
    clock.now_s += 6.9
    await ask(client)
    provider.key_behaviours.clear()
    clock.now_s += 0.1
    await ask(client)
    assert used(provider) == [HEAVY, LIGHT, LIGHT, HEAVY]


async def test_all_keys_rest(client: CloudAdapterClient, provider: FakeProvider) -> None:
    """When no key is left the one that rests least longer is used all the same: the provider has the last word."""
    provider.key_behaviours.update({HEAVY: "status:code=403", LIGHT: "rate_limit:retry_after_s=5"})
    assert type(await failing(client)) is UpstreamError
    assert type(await failing(client)) is RateLimited
    last = await failing(client)
    assert type(last) is RateLimited
    assert "other_key" not in last.details
    assert used(provider) == [HEAVY, LIGHT, LIGHT]


@pytest.mark.parametrize("model", ["status:code=500", "bad_param", "reset"])
async def test_other_failures_send_no_key_to_rest(
    client: CloudAdapterClient, provider: FakeProvider, model: str
) -> None:
    """A fault of the provider or of the request says nothing of the key."""
    await failing(client, model)
    await ask(client)
    assert used(provider) == [HEAVY, HEAVY]


async def test_no_key_is_told(client: CloudAdapterClient, provider: FakeProvider, tmp_path: Path) -> None:
    """A provider that quotes the key it was sent, or another of the same account, has both taken out."""
    for behaviour in ("status:code=500", "status:code=418"):
        provider.key_behaviours.update({HEAVY: behaviour, LIGHT: behaviour})
        error = await failing(client)
        shown = error.message + "".join(error.details.values())
        assert "[redacted]" in shown
        assert "key-heavy" not in shown
        assert "key-light" not in shown
    log = (tmp_path / "log").read_text()
    assert "provider failed" in log
    assert "0123456789" not in log


async def test_one_good_key_is_enough(provider: FakeProvider, tmp_path: Path) -> None:
    """A key that cannot be read is warned about, and the provider is usable as long as one can."""
    keys = [{"env": "NOT_SET"}, {"env": "LIGHT"}]
    several = {"base_url": provider.base_url, "api_keys": keys}
    none = {"base_url": provider.base_url, "api_keys": keys[:1]}
    async with adapting(tmp_path / "log", ENVIRONMENT, several=several, none=none) as client:
        good, bad = (await client.list_providers(ListProvidersRequest())).providers
        await ask(client)
    assert (good.usable, good.problem) == (True, "")
    assert not bad.usable
    assert "NOT_SET is not set" in bad.problem
    assert "NOT_SET is not set" in (tmp_path / "log").read_text()
    assert used(provider) == [LIGHT]
