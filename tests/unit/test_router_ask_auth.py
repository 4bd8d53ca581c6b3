"""Auth is asked about what the router does not know: once, by all who ask, and not by a flood."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import pytest

from gen.weir.auth.v1 import AuthenticateRequest, Key
from gen.weir.type.v1 import Principal
from meshkit.errors import KeyExpired, KeyInvalid, RateLimited, UpstreamError, WeirError
from services.router.ask_auth import AskAuth, Credential
from services.router.identity_settings import IdentitySettings
from tests.fakes.router import FakeClock

KEY = Key(id="jwt_abc", principal=Principal(key_id="jwt_abc", org="acme", team="search"))


class SlowAuth:
    """Answers when told to."""

    def __init__(self, answer: Key | WeirError, *, open_: bool = True) -> None:
        self.answer = answer
        self.asked: list[AuthenticateRequest] = []
        self.gate = asyncio.Event()
        if open_:
            self.gate.set()

    async def __call__(self, request: AuthenticateRequest) -> Key:
        self.asked.append(request)
        await self.gate.wait()
        if isinstance(self.answer, WeirError):
            raise self.answer
        return self.answer


def subject(auth: SlowAuth, clock: FakeClock, **settings: float) -> AskAuth:
    """The subject with small memories."""
    return AskAuth(auth, clock, IdentitySettings.model_validate(settings), timedelta(seconds=5), 2)


def some() -> Credential:
    """One that nobody offered before."""
    return "", os.urandom(32)


async def test_askers_share_a_call() -> None:
    """Ten at once cost Auth one call; one that goes away takes the answer from nobody."""
    auth = SlowAuth(KEY, open_=False)
    ask = subject(auth, FakeClock())
    credential, request = some(), AuthenticateRequest(jwt="x")
    askers = [asyncio.create_task(ask(credential, request)) for _ in range(10)]
    await asyncio.sleep(0)
    askers[0].cancel()
    auth.gate.set()
    answers = await asyncio.gather(*askers, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [KEY] * 9
    assert len(auth.asked) == 1


async def test_a_flood_does_not_reach_auth() -> None:
    """Calls are limited by the second; what is beyond is refused as a rate, with a time to wait."""
    auth, clock = SlowAuth(KeyInvalid("the key is not known")), FakeClock()
    ask = subject(auth, clock, asks_per_s=20, asks_burst=20)
    refused = []
    for tenths in range(100):
        clock.elapsed_s = tenths / 10
        for _ in range(50):
            with pytest.raises((KeyInvalid, RateLimited)) as caught:
                await ask(some(), AuthenticateRequest(key_id="k"))
            refused.append(caught.value)
    assert len(auth.asked) <= 20 + 10 * 20
    limited = [error for error in refused if isinstance(error, RateLimited)]
    assert len(limited) == len(refused) - len(auth.asked)
    assert limited[0].retry_after == timedelta(seconds=1)


async def test_a_flood_of_keys_keeps_no_token_out() -> None:
    """Nor the other way round."""
    auth = SlowAuth(KEY)
    ask = subject(auth, FakeClock(), asks_per_s=1, asks_burst=1)
    for request in (AuthenticateRequest(key_id="k"), AuthenticateRequest(jwt="x")):
        await ask(some(), request)
        with pytest.raises(RateLimited):
            await ask(some(), request)


async def test_a_flood_keeps_no_token_out_that_was_good_before() -> None:
    """To ask again about one that Auth called good costs nothing of what unknown ones have; once it is not, it does."""
    auth, clock = SlowAuth(KEY), FakeClock()
    ask = subject(auth, clock, asks_per_s=0.001, asks_burst=1, token_for_s=60)
    credential, request = some(), AuthenticateRequest(jwt="x")
    await ask(credential, request)
    with pytest.raises(RateLimited):
        await ask(some(), request)
    clock.elapsed_s = 61
    assert await ask(credential, request) is KEY
    auth.answer = UpstreamError("auth does not answer")
    clock.elapsed_s = 122
    with pytest.raises(UpstreamError):
        await ask(credential, request)
    auth.answer = KeyExpired("the token has expired")
    with pytest.raises(KeyExpired):
        await ask(credential, request)
    clock.elapsed_s = 200
    with pytest.raises(RateLimited):
        await ask(credential, request)
    assert len(auth.asked) == 4


async def test_good_tokens_are_remembered_until_they_end() -> None:
    """A JWT costs a call a minute, fewer seconds where it ends sooner, and a flood of bad ones does not displace it."""
    clock = FakeClock()
    auth = SlowAuth(KEY)
    ask = subject(auth, clock, asks_per_s=1_000, asks_burst=1_000)
    credential, request = some(), AuthenticateRequest(jwt="x")
    await ask(credential, request)
    auth.answer = KeyExpired("the token has expired")
    for _ in range(10):
        with pytest.raises(KeyExpired):
            await ask(some(), AuthenticateRequest(jwt="y"))
    clock.elapsed_s = 59.9
    assert await ask(credential, request) is KEY
    clock.elapsed_s = 60.1
    with pytest.raises(KeyExpired):
        await ask(credential, request)
    short = Key(id="jwt_b", expires_at=clock.now() + timedelta(seconds=3))
    auth.answer = short
    other = some()
    assert await ask(other, request) is short
    clock.elapsed_s += 3
    before = len(auth.asked)
    await ask(other, request)
    assert len(auth.asked) == before + 1


async def test_a_key_that_auth_knows_is_remembered_for_a_second() -> None:
    """Its next change comes with the key set; until then the answer may not grow old."""
    auth, clock = SlowAuth(KEY), FakeClock()
    ask = subject(auth, clock)
    credential, request = some(), AuthenticateRequest(key_id="k")
    for elapsed_s, asked in ((0, 1), (0.9, 1), (1.1, 2)):
        clock.elapsed_s = elapsed_s
        await ask(credential, request)
        assert len(auth.asked) == asked


async def test_an_outage_is_not_remembered() -> None:
    """Where Auth does not answer nothing is known of the key."""
    auth = SlowAuth(UpstreamError("auth does not answer"))
    ask = subject(auth, FakeClock())
    credential, request = some(), AuthenticateRequest(key_id="k")
    with pytest.raises(UpstreamError):
        await ask(credential, request)
    auth.answer = KEY
    assert await ask(credential, request) is KEY
