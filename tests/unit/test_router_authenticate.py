"""Who asks, from the router's own copy of the key set."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gen.weir.auth.v1 import Key, Scope
from gen.weir.type.v1 import Principal
from meshkit.errors import Forbidden, KeyExpired, KeyInvalid, KeyMissing, KeyRevoked, UpstreamError
from meshkit.tokens import Token, mint
from services.router.ask_auth import AskAuth
from services.router.authenticate import Authenticate
from services.router.domain.permissions import Caller
from services.router.identity_settings import IdentitySettings
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


def subject(
    keys: FakeKeys, clock: FakeClock | None = None, callers: int = 10, **identity: Any
) -> Authenticate:
    """The use case with small numbers."""
    clock = clock or FakeClock()
    settings = IdentitySettings(**identity)
    ask = AskAuth(keys.ask, clock, settings, refused_for=timedelta(seconds=5), refused_keys=2)
    return Authenticate(
        keys,
        ask,
        clock,
        max_stale=timedelta(minutes=15),
        unknown_fresh=timedelta(seconds=30),
        callers=callers,
    )


async def recognise(subject: Authenticate, header: str | None, *any_of: Scope, address: str = "") -> Caller:
    """What the subject makes of a header."""
    return await subject.authenticate(header, lambda: address, *(any_of or (Scope.CHAT,)))


async def test_known_key_asks_nobody() -> None:
    """A key of the copy is recognised without a call."""
    keys = FakeKeys(KEY)
    caller = await recognise(subject(keys), bearer(TOKEN))
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
        await recognise(subject(keys), bearer(forged))
    assert keys.asked == []


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer "])
async def test_no_key(header: str | None) -> None:
    """Nothing sent is KEY_MISSING."""
    with pytest.raises(KeyMissing):
        await recognise(subject(FakeKeys()), header)


@pytest.mark.parametrize(
    "header",
    ["Basic abc", "Bearer sk-123", "Bearer weir_x_y", f"Bearer {TOKEN.text}x"],
    ids=["basic", "foreign", "short", "long"],
)
async def test_malformed_key_asks_nobody(header: str) -> None:
    """A token of another shape never reaches Auth."""
    keys = FakeKeys()
    with pytest.raises(KeyInvalid):
        await recognise(subject(keys), header)
    assert keys.asked == []


async def test_unknown_key_is_asked_once() -> None:
    """A refusal is remembered for a while, then Auth is asked again."""
    keys, clock = FakeKeys(), FakeClock()
    authenticate = subject(keys, clock)
    for _ in range(3):
        with pytest.raises(KeyInvalid):
            await recognise(authenticate, bearer(TOKEN))
    assert len(keys.asked) == 1
    clock.elapsed_s = 6
    keys.at_auth[TOKEN.key_id] = KEY
    assert (await recognise(authenticate, bearer(TOKEN))).principal.team == "search"


async def test_refusals_are_bounded() -> None:
    """A flood of bad keys does not grow memory."""
    authenticate = subject(FakeKeys())
    for _ in range(5):
        with pytest.raises(KeyInvalid):
            await recognise(authenticate, bearer(mint(os.urandom)))
    assert len(authenticate._ask._refused._answers) == 2


async def test_stale_copy_is_not_trusted_for_ever() -> None:
    """After max_stale without a sign of life from Auth known keys are refused as what cannot be checked."""
    keys = FakeKeys(KEY)
    keys.silent_for = timedelta(minutes=15)
    await recognise(subject(keys), bearer(TOKEN))
    keys.silent_for = timedelta(minutes=16)
    with pytest.raises(UpstreamError, match="no sign of life for 960 s"):
        await recognise(subject(keys), bearer(TOKEN))


async def test_unknown_keys_need_a_fresh_copy() -> None:
    """After 30 s of silence an unknown key is refused at once; Auth, which does not answer, is not asked."""
    keys = FakeKeys()
    keys.at_auth[KEY.id] = KEY
    keys.silent_for = timedelta(seconds=31)
    with pytest.raises(UpstreamError):
        await recognise(subject(keys), bearer(TOKEN))
    assert keys.asked == []


async def test_expired_and_revoked() -> None:
    """A key's end is told from a key that nobody knows."""
    clock = FakeClock()
    expired = replace(KEY, expires_at=clock.now() - timedelta(seconds=1))
    with pytest.raises(KeyExpired):
        await recognise(subject(FakeKeys(expired), clock), bearer(TOKEN))
    revoked = replace(KEY, revoked_at=clock.now())
    with pytest.raises(KeyRevoked):
        await recognise(subject(FakeKeys(revoked), clock), bearer(TOKEN))


async def test_remembered_refusal_is_a_new_error_each_time() -> None:
    """An exception that is raised again keeps every traceback, so a flood of bad keys would pile them up."""
    authenticate = subject(FakeKeys())
    raised = []
    for _ in range(3):
        with pytest.raises(KeyInvalid) as caught:
            await recognise(authenticate, bearer(TOKEN))
        raised.append(caught.value)
    assert len({id(error) for error in raised}) == len(raised)
    assert {error.message for error in raised} == {"the key is not known"}


async def test_a_key_carries_what_it_may_use() -> None:
    """Its models and targets, each by their own patterns; so does a key that only Auth knows."""
    limited = replace(KEY, models=["gpt-*"], targets=["local"])
    elsewhere = FakeKeys()
    elsewhere.at_auth[KEY.id] = limited
    for keys in (FakeKeys(limited), elsewhere):
        permissions = (await recognise(subject(keys), bearer(TOKEN))).permissions
        assert permissions.may_use_model("gpt-4o")
        assert not permissions.may_use_model("local")
        assert permissions.may_use_target("local")
        assert not permissions.may_use_target("gpt-4o")


async def test_a_warm_request_makes_nothing() -> None:
    """The caller of an unchanged key is made once, though a snapshot or Auth bring the key as another object."""
    keys = FakeKeys(replace(KEY, models=["gpt-*"]))
    authenticate = subject(keys)
    caller = await recognise(authenticate, bearer(TOKEN))
    assert await recognise(authenticate, bearer(TOKEN)) is caller
    keys.held[KEY.id] = replace(KEY, models=["gpt-*"])
    assert await recognise(authenticate, bearer(TOKEN)) is caller
    keys.at_auth = {KEY.id: replace(KEY, models=["gpt-*"])}
    keys.held = {}
    assert await recognise(authenticate, bearer(TOKEN)) is caller
    assert keys.asked == [KEY.id]


async def test_a_changed_key_loses_what_it_could_do_before() -> None:
    """The next request after the change has the new permissions and the new principal."""
    keys = FakeKeys(KEY)
    authenticate = subject(keys)
    assert (await recognise(authenticate, bearer(TOKEN))).permissions.may_use_model("gpt-4o")
    moved = Principal(key_id=KEY.id, org="acme", team="other")
    keys.held[KEY.id] = replace(KEY, models=["local"], principal=moved)
    caller = await recognise(authenticate, bearer(TOKEN))
    assert not caller.permissions.may_use_model("gpt-4o")
    assert caller.principal == moved
    keys.held[KEY.id] = KEY
    assert (await recognise(authenticate, bearer(TOKEN))).permissions.may_use_model("gpt-4o")


async def test_remembered_callers_are_bounded() -> None:
    """Many keys do not grow memory, and a forgotten one is made again."""
    tokens = [mint(os.urandom) for _ in range(5)]
    keys = FakeKeys(*(key_of(token) for token in tokens))
    authenticate = subject(keys, callers=2)
    for token in [*tokens, *tokens]:
        caller = await recognise(authenticate, bearer(token))
        assert caller.principal.key_id == token.key_id
        assert len(authenticate._callers) <= 2


async def test_a_key_without_a_principal_is_refused() -> None:
    """Nobody could be charged for what it asks."""
    with pytest.raises(KeyInvalid):
        await recognise(subject(FakeKeys(replace(KEY, principal=None))), bearer(TOKEN))


async def test_scopes() -> None:
    """A key of which nothing is said may chat and embed; another may do what its scopes say, and gets 403 otherwise."""
    for scope in (Scope.CHAT, Scope.EMBED):
        await recognise(subject(FakeKeys(KEY)), bearer(TOKEN), scope)
    admin = FakeKeys(replace(KEY, scopes=[Scope.ADMIN, Scope.EMBED]))
    await recognise(subject(admin), bearer(TOKEN), Scope.CHAT, Scope.EMBED)
    with pytest.raises(Forbidden, match="lacks the scope chat"):
        await recognise(subject(admin), bearer(TOKEN), Scope.CHAT)


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::7", True),
        ("11.1.2.3", False),
        ("2001:db9::7", False),
        ("10.1.2.3, 11.1.2.3", False),
        ("localhost", False),
        ("", False),
    ],
)
async def test_networks(address: str, *, fits: bool) -> None:
    """A key bound to networks is good from an address within them alone; an unknown address lies nowhere."""
    keys = FakeKeys(replace(KEY, networks=["10.0.0.0/8", "2001:db8::/32"]))
    if fits:
        await recognise(subject(keys), bearer(TOKEN), address=address)
        return
    with pytest.raises(Forbidden, match="network"):
        await recognise(subject(keys), bearer(TOKEN), address=address)


async def test_rotation_overlaps() -> None:
    """The former secret is good until its time, the new one from the beginning, and a third one never."""
    clock = FakeClock()
    rotated = replace(
        KEY,
        secret_sha256=b"n" * 32,
        previous_sha256=TOKEN.secret_sha256,
        previous_until=clock.now() + timedelta(seconds=10),
    )
    authenticate = subject(FakeKeys(rotated), clock)
    await recognise(authenticate, bearer(TOKEN))
    clock.elapsed_s = 10
    with pytest.raises(KeyInvalid):
        await recognise(authenticate, bearer(TOKEN))


async def test_a_key_rotated_without_overlap_has_no_former_secret() -> None:
    """An empty digest is nobody's secret."""
    rotated = replace(KEY, secret_sha256=b"n" * 32)
    with pytest.raises(KeyInvalid):
        await recognise(subject(FakeKeys(rotated)), bearer(TOKEN))
