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


def key_of(token: Token) -> Key:
    """The key that `token` opens."""
    return Key(
        id=token.key_id,
        secret_sha256=token.secret_sha256,
        principal=Principal(key_id=token.key_id, org="acme", team="search"),
    )


KEY = key_of(TOKEN)


def bearer(token: Token) -> str:
    """The header's value."""
    return f"Bearer {token.text}"


def subject(keys: FakeKeys, clock: FakeClock | None = None, callers: int = 10) -> Authenticate:
    """The use case with small numbers."""
    return Authenticate(
        keys,
        clock or FakeClock(),
        max_stale=timedelta(minutes=15),
        refused_for=timedelta(seconds=5),
        refused_keys=2,
        callers=callers,
    )


async def test_known_key_asks_nobody() -> None:
    """A key of the copy is recognised without a call."""
    keys = FakeKeys(KEY)
    caller = await subject(keys).authenticate(bearer(TOKEN))
    assert caller.principal == KEY.principal
    assert caller.permissions.may_use_model("any")
    assert caller.permissions.may_use_target("any")
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
    assert (await authenticate.authenticate(bearer(TOKEN))).principal.team == "search"


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


async def test_a_key_carries_what_it_may_use() -> None:
    """Its models and targets, each by their own patterns; so does a key that only Auth knows."""
    limited = replace(KEY, models=["gpt-*"], targets=["local"])
    elsewhere = FakeKeys()
    elsewhere.at_auth[KEY.id] = limited
    for keys in (FakeKeys(limited), elsewhere):
        permissions = (await subject(keys).authenticate(bearer(TOKEN))).permissions
        assert permissions.may_use_model("gpt-4o")
        assert not permissions.may_use_model("local")
        assert permissions.may_use_target("local")
        assert not permissions.may_use_target("gpt-4o")


async def test_a_warm_request_makes_nothing() -> None:
    """The caller of an unchanged key is made once, though a snapshot or Auth bring the key as another object."""
    keys = FakeKeys(replace(KEY, models=["gpt-*"]))
    authenticate = subject(keys)
    caller = await authenticate.authenticate(bearer(TOKEN))
    assert await authenticate.authenticate(bearer(TOKEN)) is caller
    keys.held[KEY.id] = replace(KEY, models=["gpt-*"])
    assert await authenticate.authenticate(bearer(TOKEN)) is caller
    keys.at_auth = {KEY.id: replace(KEY, models=["gpt-*"])}
    keys.silent_for = timedelta(minutes=16)
    assert await authenticate.authenticate(bearer(TOKEN)) is caller
    assert keys.asked == [KEY.id]


async def test_a_changed_key_loses_what_it_could_do_before() -> None:
    """The next request after the change has the new permissions and the new principal."""
    keys = FakeKeys(KEY)
    authenticate = subject(keys)
    assert (await authenticate.authenticate(bearer(TOKEN))).permissions.may_use_model("gpt-4o")
    moved = Principal(key_id=KEY.id, org="acme", team="other")
    keys.held[KEY.id] = replace(KEY, models=["local"], principal=moved)
    caller = await authenticate.authenticate(bearer(TOKEN))
    assert not caller.permissions.may_use_model("gpt-4o")
    assert caller.principal == moved
    keys.held[KEY.id] = KEY
    assert (await authenticate.authenticate(bearer(TOKEN))).permissions.may_use_model("gpt-4o")


async def test_remembered_callers_are_bounded() -> None:
    """Many keys do not grow memory, and a forgotten one is made again."""
    tokens = [mint(os.urandom) for _ in range(5)]
    keys = FakeKeys(*(key_of(token) for token in tokens))
    authenticate = subject(keys, callers=2)
    for token in [*tokens, *tokens]:
        caller = await authenticate.authenticate(bearer(token))
        assert caller.principal.key_id == token.key_id
        assert len(authenticate._callers) <= 2


async def test_a_key_without_a_principal_is_refused() -> None:
    """Nobody could be charged for what it asks."""
    with pytest.raises(KeyInvalid):
        await subject(FakeKeys(replace(KEY, principal=None))).authenticate(bearer(TOKEN))
