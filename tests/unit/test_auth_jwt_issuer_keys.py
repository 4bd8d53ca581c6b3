"""When an issuer's keys are fetched, how long they are used, and what a flood costs."""

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from meshkit.errors import KeyExpired, KeyInvalid, UpstreamError
from meshkit.telemetry import Logger
from services.auth.jwt.issuer_keys import IssuerKeys, KeyTimes
from services.auth.jwt.metrics import TokenMetrics
from tests.fakes.oidc import NOW_S, FakeIssuer, Tokens, jwk, private_key

_DAY = timedelta(days=1)
_SOON_S = 5.0


def _rotated(number: int) -> dict[str, Any]:
    return jwk(private_key("ES256", number).public_key(), f"key-{number}")


def _token(issuer: FakeIssuer, number: int, tokens: Tokens | None = None) -> str:
    now_s = NOW_S if tokens is None else tokens.monotonic()
    header = {"kid": f"key-{number}"}
    return issuer.token(number=number, header=header, iat=now_s, nbf=now_s, exp=now_s + 300)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(_SOON_S):
        while not holds():  # noqa: ASYNC110 - the fake counts and has no event for it
            await asyncio.sleep(0.001)


async def test_the_first_token_fetches_the_keys_and_the_next_ones_do_not() -> None:
    """Also without the job in the background."""
    issuer = FakeIssuer()
    tokens = Tokens(issuer)
    for alg in ("RS256", "ES256", "EdDSA"):
        await tokens(issuer.token(alg))
    assert issuer.fetches == 1


async def test_a_new_key_is_known_with_its_first_token() -> None:
    """Rotation by kid: the old and the new one side by side, then the old one gone."""
    issuer = FakeIssuer([_rotated(1)])
    tokens = Tokens(issuer)
    await tokens(_token(issuer, 1))
    issuer.published.append(_rotated(2))
    tokens.now += timedelta(seconds=11)
    await tokens(_token(issuer, 2, tokens))
    await tokens(_token(issuer, 1, tokens))
    assert issuer.fetches == 2
    issuer.published = [_rotated(2), _rotated(3)]
    tokens.now += timedelta(seconds=11)
    await tokens(_token(issuer, 3, tokens))
    with pytest.raises(KeyInvalid, match="publishes no such key"):
        await tokens(_token(issuer, 1, tokens))


async def test_a_flood_of_unknown_kids_costs_one_fetch() -> None:
    """Per refetch interval, whether they come one by one or all at once; good tokens go on meanwhile."""
    issuer = FakeIssuer()
    tokens = Tokens(issuer)
    await tokens(issuer.token())
    tokens.now += timedelta(seconds=11)
    issuer.held = asyncio.Event()
    flood = [asyncio.create_task(tokens(_token(issuer, number, tokens))) for number in range(1, 4)]
    await _until(lambda: issuer.fetches == 2)
    assert await tokens(issuer.token(iat=None, nbf=None)) is not None
    issuer.held.set()
    assert all(isinstance(end, KeyInvalid) for end in await asyncio.gather(*flood, return_exceptions=True))
    for _ in range(50):
        with pytest.raises(KeyInvalid):
            await tokens(_token(issuer, 1, tokens))
    assert issuer.fetches == 2


async def test_a_known_kid_with_the_wrong_algorithm_fetches_nothing() -> None:
    """It is no rotation."""
    issuer = FakeIssuer()
    tokens = Tokens(issuer)
    await tokens(issuer.token())
    tokens.now += timedelta(seconds=11)
    with pytest.raises(KeyInvalid):
        await tokens(issuer.token("RS256", header={"kid": "es256"}, iat=None, nbf=None))
    assert issuer.fetches == 1


async def test_one_who_goes_away_does_not_end_the_fetch_for_the_others() -> None:
    """Single flight: the first caller began it, the second one gets its result."""
    issuer = FakeIssuer(held=asyncio.Event())
    tokens = Tokens(issuer)
    first, second = (asyncio.create_task(tokens(issuer.token())) for _ in range(2))
    await _until(lambda: issuer.fetches == 1)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    assert issuer.held is not None
    issuer.held.set()
    assert (await second).owner == "ada"
    assert issuer.fetches == 1


async def test_keys_are_used_while_the_issuer_is_away_and_not_for_ever() -> None:
    """24 hours by default; then nobody can say whether a token is good."""
    issuer = FakeIssuer()
    tokens = Tokens(issuer)
    await tokens(issuer.token())
    issuer.away()
    tokens.now += _DAY - timedelta(seconds=1)
    late = tokens.monotonic()
    assert await tokens(issuer.token(iat=late, nbf=late, exp=late + 60)) is not None
    with pytest.raises(KeyInvalid):
        await tokens(_token(issuer, 1, tokens))
    tokens.now += timedelta(seconds=2)
    with pytest.raises(UpstreamError, match="not at hand"):
        await tokens(issuer.token(exp=late + 60))
    issuer.back()
    tokens.now += timedelta(seconds=10)
    assert await tokens(issuer.token(iat=late, nbf=late, exp=late + 60)) is not None


async def test_without_keys_from_the_beginning_no_verdict_is_given() -> None:
    """UpstreamError, and the issuer that is away is not asked by every token."""
    issuer = FakeIssuer()
    issuer.away()
    tokens = Tokens(issuer)
    for _ in range(5):
        with pytest.raises(UpstreamError):
            await tokens(issuer.token())
    assert issuer.fetches == 1
    issuer.back()
    tokens.now += timedelta(seconds=10)
    assert await tokens(issuer.token()) is not None


@pytest.mark.parametrize("document", [b"", b"<html>", b'{"keys": 1}', b'{"keys": [1]}', b"\xff" * 100])
async def test_a_document_that_cannot_be_read_changes_nothing(document: bytes) -> None:
    """The keys of before stay in use; once it can be read again, it counts."""
    issuer = FakeIssuer()
    tokens = Tokens(issuer)
    await tokens(issuer.token())
    issuer.document = document
    tokens.now += timedelta(seconds=11)
    with pytest.raises(KeyInvalid):
        await tokens(_token(issuer, 1, tokens))
    assert issuer.fetches == 2
    assert await tokens(issuer.token(iat=None, nbf=None)) is not None
    issuer.document, issuer.published = None, [_rotated(1)]
    tokens.now += timedelta(seconds=11)
    assert await tokens(_token(issuer, 1, tokens)) is not None


async def test_a_withdrawn_key_is_no_longer_trusted() -> None:
    """Also where nothing usable is left."""
    issuer = FakeIssuer()
    tokens = Tokens(issuer)
    await tokens(issuer.token())
    issuer.published = []
    tokens.now += timedelta(seconds=11)
    for _ in range(2):
        with pytest.raises(KeyInvalid):
            await tokens(_token(issuer, 1, tokens))
        with pytest.raises(KeyInvalid):
            await tokens(issuer.token(iat=None, nbf=None))


async def test_an_error_that_nobody_expected_is_a_failed_fetch() -> None:
    """It neither reaches the caller nor ends the job."""
    issuer = FakeIssuer(failure=ZeroDivisionError())
    tokens = Tokens(issuer)
    with pytest.raises(UpstreamError):
        await tokens(issuer.token())


async def test_metrics_tell_age_failures_and_verdicts() -> None:
    """By the issuer's name; a token's own words are no label."""
    issuer = FakeIssuer()
    tokens = Tokens(issuer)
    age = ("weir_auth_issuer_keys_age_seconds", {"issuer": "work"})
    assert tokens.registry.get_sample_value(*age) == float("inf")
    await tokens(issuer.token())
    issuer.away()
    tokens.now += timedelta(seconds=40)
    for text in (_token(issuer, 1, tokens), issuer.token(iss="else"), issuer.token(exp=1), "x"):
        with pytest.raises((KeyInvalid, KeyExpired)):
            await tokens(text)
    assert tokens.registry.get_sample_value(*age) == 40
    assert tokens.sample("weir_auth_issuer_keys", issuer="work") == 3
    assert tokens.sample("weir_auth_issuer_fetches_total", issuer="work", outcome="good") == 1
    assert tokens.sample("weir_auth_issuer_fetches_total", issuer="work", outcome="failed") == 1
    assert tokens.sample("weir_auth_tokens_total", issuer="work", outcome="accepted") == 1
    assert tokens.sample("weir_auth_tokens_total", issuer="work", outcome="key_expired") == 1
    assert tokens.sample("weir_auth_tokens_total", issuer="work", outcome="key_invalid") == 1
    assert tokens.sample("weir_auth_tokens_total", issuer="", outcome="key_invalid") == 2


class _Background:
    """Keys that fetch themselves, on the real clock, with what they log."""

    def __init__(self, issuer: FakeIssuer, log: Path, fresh_s: float, refetch_s: float) -> None:
        self._log = log
        self._fd = os.open(log, os.O_CREAT | os.O_WRONLY)
        self.registry = CollectorRegistry()
        self.keys = IssuerKeys(
            "work",
            issuer,
            KeyTimes(fresh_s, refetch_s, 100),
            asyncio.get_running_loop().time,
            TokenMetrics(self.registry),
            Logger("auth", self._fd),
        )

    async def stop(self) -> None:
        await self.keys.stop()
        os.close(self._fd)

    def events(self) -> list[str]:
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [f"{line['level']}: {line['event']}" for line in map(json.loads, lines)]


async def test_keys_are_fetched_again_in_the_background(tmp_path: Path) -> None:
    """Without any token; a failure is retried sooner, told once, and so is its end."""
    issuer = FakeIssuer()
    job = _Background(issuer, tmp_path / "log", fresh_s=0.02, refetch_s=0.005)
    job.keys.start()
    await _until(lambda: issuer.fetches >= 3)
    issuer.away()
    failing = issuer.fetches
    await _until(lambda: issuer.fetches >= failing + 4)
    issuer.back()
    back = issuer.fetches
    await _until(lambda: issuer.fetches >= back + 2)
    await job.stop()
    assert job.events() == [
        "info: issuer's keys read",
        "warning: issuer's keys cannot be had",
        "info: issuer's keys can be had again",
    ]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_is_left_out_is_told_once_per_document(tmp_path: Path) -> None:
    """Keys for other purposes are usual; secrets in public are a warning. Nothing of a key is told."""
    issuer = FakeIssuer()
    issuer.published.append({**issuer.published[0], "kid": "for-encryption", "use": "enc"})
    job = _Background(issuer, tmp_path / "log", fresh_s=100, refetch_s=0)
    await job.keys.refresh()
    await job.keys.refresh()
    assert job.events() == ["info: issuer's keys read"]
    issuer.published.append(jwk(private_key("ES256"), "private"))
    await job.keys.refresh()
    assert job.events()[1:] == ["warning: issuer's keys read"]
    issuer.published = []
    await job.keys.refresh()
    assert job.events()[2:] == ["warning: issuer's keys read"]
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert jwk(private_key("ES256"), "private")["d"] not in text
    assert "for-encryption" not in text
    await job.stop()


async def test_stopping_ends_a_fetch_that_hangs(tmp_path: Path) -> None:
    """And the job that waits for it."""
    issuer = FakeIssuer(held=asyncio.Event())
    job = _Background(issuer, tmp_path / "log", fresh_s=100, refetch_s=0)
    job.keys.start()
    await _until(lambda: issuer.fetches == 1)
    async with asyncio.timeout(_SOON_S):
        await job.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
