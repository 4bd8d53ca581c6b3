"""Who asks, from the router's own copy of the key set."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import pytest

from gen.weir.auth.v1 import Key
from gen.weir.type.v1 import Principal
from meshkit.errors import KeyExpired, KeyInvalid, KeyMissing, KeyRevoked
from meshkit.tokens import Token, mint
from services.router.authenticate import Authenticate
from tests.fakes.router import FakeClock, FakeKeys

TOKEN = mint(os.urandom)
KEY = Key(
    id=TOKEN.key_id,
    secret_sha256=TOKEN.secret_sha256,
    principal=Principal(key_id=TOKEN.key_id, org="acme", team="search"),
)


def bearer(token: Token) -> str:
    """The header's value."""
    return f"Bearer {token.text}"


def subject(keys: FakeKeys, clock: FakeClock | None = None) -> Authenticate:
    """The use case with small numbers."""
    return Authenticate(
        keys,
        clock or FakeClock(),
        max_stale=timedelta(minutes=15),
        refused_for=timedelta(seconds=5),
        refused_keys=2,
    )


async def test_known_key_asks_nobody() -> None:
    """A key of the copy is recognised without a call."""
    keys = FakeKeys(KEY)
    assert (await subject(keys).authenticate(bearer(TOKEN))).org == "acme"
    assert keys.asked == []


async def test_wrong_secret_of_known_key_is_refused_without_a_call() -> None:
    """The copy is enough to refuse."""
    keys = FakeKeys(KEY)
    forged = mint(bytes)
    wrong = replace(KEY, id=forged.key_id)
    keys.held[forged.key_id] = wrong
    with pytest.raises(KeyInvalid):
        await subject(keys).authenticate(bearer(forged))
    assert keys.asked == []


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer "])
async def test_no_key(header: str | None) -> None:
    """Nothing sent is KEY_MISSING."""
    with pytest.raises(KeyMissing):
        await subject(FakeKeys()).authenticate(header)


@pytest.mark.parametrize(
    "header",
    ["Basic abc", "Bearer sk-123", "Bearer weir_x_y", f"Bearer {TOKEN.text}x"],
    ids=["basic", "foreign", "short", "long"],
)
async def test_malformed_key_asks_nobody(header: str) -> None:
    """A token of another shape never reaches Auth."""
    keys = FakeKeys()
    with pytest.raises(KeyInvalid):
        await subject(keys).authenticate(header)
    assert keys.asked == []


async def test_unknown_key_is_asked_once() -> None:
    """A refusal is remembered for a while, then Auth is asked again."""
    keys, clock = FakeKeys(), FakeClock()
    authenticate = subject(keys, clock)
    for _ in range(3):
        with pytest.raises(KeyInvalid):
            await authenticate.authenticate(bearer(TOKEN))
    assert len(keys.asked) == 1
    clock.elapsed_s = 6
    keys.at_auth[TOKEN.key_id] = KEY
    assert (await authenticate.authenticate(bearer(TOKEN))).team == "search"


async def test_refusals_are_bounded() -> None:
    """A flood of bad keys does not grow memory."""
    authenticate = subject(FakeKeys())
    for _ in range(5):
        with pytest.raises(KeyInvalid):
            await authenticate.authenticate(bearer(mint(os.urandom)))
    assert len(authenticate._refused) == 2


async def test_stale_copy_is_not_trusted_for_ever() -> None:
    """After max_stale without a sign of life Auth itself is asked."""
    keys = FakeKeys(KEY)
    keys.silent_for = timedelta(minutes=16)
    with pytest.raises(KeyInvalid):
        await subject(keys).authenticate(bearer(TOKEN))
    assert keys.asked == [TOKEN.key_id]


async def test_expired_and_revoked() -> None:
    """A key's end is told from a key that nobody knows."""
    clock = FakeClock()
    expired = replace(KEY, expires_at=clock.now() - timedelta(seconds=1))
    with pytest.raises(KeyExpired):
        await subject(FakeKeys(expired), clock).authenticate(bearer(TOKEN))
    revoked = replace(KEY, revoked_at=clock.now())
    with pytest.raises(KeyRevoked):
        await subject(FakeKeys(revoked), clock).authenticate(bearer(TOKEN))


async def test_remembered_refusal_is_a_new_error_each_time() -> None:
    """An exception that is raised again keeps every traceback, so a flood of bad keys would pile them up."""
    authenticate = subject(FakeKeys())
    raised = []
    for _ in range(3):
        with pytest.raises(KeyInvalid) as caught:
            await authenticate.authenticate(bearer(TOKEN))
        raised.append(caught.value)
    assert len({id(error) for error in raised}) == len(raised)
    assert {error.message for error in raised} == {"the key is not known"}
