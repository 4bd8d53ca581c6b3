"""Limits through the whole mesh: keys made by command, two workers behind the edge, far more requests than allowed."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import openai
import pytest

from tests.harness.running_weir import Provider, RunningWeir, free_configuration, wait_for

TOPOLOGIES = ("separate", "compact")
SLOW = "instant:chunks=20,gap_ms=50"


class Reply(NamedTuple):
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(f"rates-{name}")) for name in TOPOLOGIES],
)
def limited(request: pytest.FixtureRequest, provider: Provider) -> Iterator[RunningWeir]:
    """A Weir with two workers, and a provider's models as the only targets."""
    home = Path(tempfile.mkdtemp(prefix="weir-rates-"))
    home.chmod(0o711)
    document = free_configuration(
        topology=request.param,
        workers=2,
        providers={"fake": {"base_url": provider.base_url, "api_key_env": "FAKE_API_KEY"}},
        targets={
            "quick": {"kind": "cloud", "provider": "fake", "model": "instant"},
            "slow": {"kind": "cloud", "provider": "fake", "model": SLOW},
        },
        default_model="quick",
        auth={"limits": {"teams": {"acme/narrow": {"context_tokens": 50}}}},
    )
    running = RunningWeir(home, document, environment={"FAKE_API_KEY": "sk-fake"})
    running.start()
    yield running
    running.stop()
    shutil.rmtree(home)


def key(weir: RunningWeir, *limits: str, team: str = "wide") -> str:
    """The token of a new key with these limits, once a worker knows it."""
    made = weir.run("keys", "create", "--org", "acme", "--team", team, *limits)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


async def _ask(session: aiohttp.ClientSession, weir: RunningWeir, token: str, **fields: Any) -> Reply:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10, **fields}
    url, headers = f"{weir.base_url}/chat/completions", {"authorization": f"Bearer {token}"}
    async with session.post(url, json=body, headers=headers) as answer:
        return Reply(answer.status, answer.headers, await answer.read())


def at_once(weir: RunningWeir, token: str, count: int, **fields: Any) -> list[Reply]:
    """So many requests together, each on a connection of its own."""

    async def ask() -> list[Reply]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
            return await asyncio.gather(*(_ask(session, weir, token, **fields) for _ in range(count)))

    return asyncio.run(ask())


def statuses(replies: list[Reply]) -> Counter[int]:
    """How often each came."""
    return Counter(reply.status for reply in replies)


def test_burst_over_the_limit(limited: RunningWeir) -> None:
    """Of 200 requests at once for 40 a minute, 40 at most and 38 at least are answered; the others are told when."""
    token = key(limited, "--requests-per-minute", "40")
    replies = at_once(limited, token, 200)
    replies += at_once(limited, token, 20)
    seen = statuses(replies)
    assert set(seen) == {200, 429}
    assert 38 <= seen[200] <= 40
    for reply in replies:
        assert reply.headers["x-ratelimit-limit-requests"] == "40"
        assert 0 <= int(reply.headers["x-ratelimit-remaining-requests"]) < 40
        assert reply.headers["x-ratelimit-reset-requests"]
        if reply.status == 429:
            assert 0 < int(reply.headers["retry-after"]) <= 61
            error = json.loads(reply.body)["error"]
            assert error["code"] == "rate_limit_exceeded"
            assert "the key's limit of 40 requests per minute is used up" in error["message"]


def test_slots(limited: RunningWeir) -> None:
    """Two answers at the same time and no third; when they ended there is room again."""
    token = key(limited, "--concurrent-requests", "2")
    assert statuses(at_once(limited, token, 8, model="slow", stream=True)) == {200: 2, 429: 6}
    wait_for("a free slot", lambda: at_once(limited, token, 1)[0].status == 200)


def test_tokens(limited: RunningWeir) -> None:
    """What is set aside for one answer fits, that of many does not; the official client knows the error."""
    token = key(limited, "--tokens-per-minute", "1000")
    client = openai.OpenAI(base_url=limited.base_url, api_key=token, max_retries=0, timeout=30)
    whole: Any = [{"role": "user", "content": "hi"}]
    raw = client.chat.completions.with_raw_response.create(model="quick", messages=whole, max_tokens=100)
    assert raw.headers["x-ratelimit-limit-tokens"] == "1000"
    assert 800 < int(raw.headers["x-ratelimit-remaining-tokens"]) < 900
    replies = at_once(limited, token, 30, model="slow", stream=True, max_tokens=400)
    assert 1 <= statuses(replies)[200] <= 2
    with pytest.raises(openai.RateLimitError, match="1000 tokens per minute"):
        for _ in range(20):
            client.chat.completions.create(model="quick", messages=whole, max_tokens=990)


def test_context_of_a_team(limited: RunningWeir) -> None:
    """A limit of the settings, for a team: a 400 that names it."""
    token = key(limited, team="narrow")
    assert at_once(limited, token, 1)[0].status == 200
    (reply,) = at_once(limited, token, 1, max_tokens=60)
    assert reply.status == 400
    error = json.loads(reply.body)["error"]
    assert error["code"] == "context_length_exceeded"
    assert "the team acme/narrow's limit of 50 tokens" in error["message"]


def test_auth_killed(limited: RunningWeir) -> None:
    """A limited key that is in use goes on while Auth is dead and when it is back."""
    if limited.document["topology"] == "compact":
        pytest.skip("there Auth is part of each router")
    token = key(limited, "--requests-per-minute", "6000")
    seen = statuses(at_once(limited, token, 10))
    killed = limited.kill("auth")
    while limited.pids().get("auth", killed) == killed or limited.states()["auth"] != "healthy":
        seen += statuses(at_once(limited, token, 2))
    seen += statuses(at_once(limited, token, 10))
    assert set(seen) == {200}
