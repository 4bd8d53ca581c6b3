"""Check: which requests pass to other services behind the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from gen.weir.auth.v1 import AuditEvent, AuthenticateRequest, Key, Scope
from gen.weir.error.v1 import Reason
from meshkit.errors import (
    Forbidden,
    KeyExpired,
    KeyInvalid,
    KeyMissing,
    KeyRevoked,
    RateLimited,
    UpstreamError,
    WeirError,
)
from services.auth.aside import Aside
from services.auth.check import ACTION, Check, Question
from services.auth.check_settings import CheckSettings
from services.auth.live_key_set import LiveKeySet
from services.auth.ports import StoreRead
from services.auth.recognise import Recognise
from tests.fakes.auth import MOMENT, change_of, key_of, token_of

MINUTE = timedelta(minutes=1)
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJhIn0." + "A" * 86
TOKEN = token_of(1)
SETTINGS = CheckSettings(
    max_stale_s=900,
    admin_max_stale_s=30,
    lookups_per_s=1,
    lookups_burst=2,
    refused_for_s=5,
    remembered_refusals=3,
)


class Door:
    """A Check over a key set in memory, with a store and clocks of the test's own."""

    def __init__(self, *keys: Key) -> None:
        self.now_s = 1_000.0
        self.now = MOMENT
        self.asked: list[AuthenticateRequest] = []
        self.answer: Key | WeirError = KeyInvalid("the key is not known here")
        self.rows: list[AuditEvent] = []
        self.live = LiveKeySet(timedelta(seconds=2), lambda: self.now_s)
        changes = [change_of(number, key) for number, key in enumerate(keys, 1)]
        self.live.take(StoreRead(len(keys) + 1, changes), whole=True, begun_s=self.now_s)
        recognise = Recognise(self.live, self._authenticate, self._now, lambda: self.now_s, SETTINGS)
        self.check = Check(recognise, self.rows.append, self._now, SETTINGS)

    def _now(self) -> datetime:
        return self.now

    async def _authenticate(self, request: AuthenticateRequest) -> Key:
        self.asked.append(request)
        if isinstance(self.answer, WeirError):
            raise self.answer
        return self.answer

    async def ask(self, text: str = TOKEN.text, scope: Scope | None = None, address: str = "10.1.2.3") -> Key:
        """What Check says of a bearer."""
        return await self.check(Question(f"Bearer {text}", address, scope, "docs"))


def with_scopes(*scopes: Scope) -> Key:
    """A key with these."""
    return replace(key_of(TOKEN), scopes=list(scopes))


def with_networks(networks: Sequence[str]) -> Key:
    """A key for these."""
    return replace(key_of(TOKEN), networks=list(networks))


async def test_a_known_key_needs_no_store() -> None:
    """It is recognised from memory."""
    door = Door(key_of(TOKEN))
    assert await door.ask() == key_of(TOKEN)
    assert door.asked == []
    assert door.rows == []


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (key_of(TOKEN, revoked_at=MOMENT), KeyRevoked),
        (key_of(TOKEN, expires_at=MOMENT), KeyExpired),
        (key_of(TOKEN, expires_at=MOMENT - MINUTE), KeyExpired),
        (with_networks(["10.2.0.0/16"]), Forbidden),
    ],
)
async def test_a_known_key_that_is_no_longer_good(key: Key, error: type[WeirError]) -> None:
    """Refused without the store."""
    door = Door(key)
    with pytest.raises(error):
        await door.ask()
    assert door.asked == []


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer "])
async def test_no_key(authorization: str | None) -> None:
    """Is told apart from a bad one."""
    with pytest.raises(KeyMissing):
        await Door().check(Question(authorization, "", None))


@pytest.mark.parametrize(
    "authorization", ["Basic eA==", TOKEN.text, "Bearer x", f"Bearer {TOKEN.text},Bearer {TOKEN.text}"]
)
async def test_what_is_no_key(authorization: str) -> None:
    """Another scheme, no scheme, another shape, and two headers in one: nobody is asked."""
    door = Door(key_of(TOKEN))
    with pytest.raises(KeyInvalid):
        await door.check(Question(authorization, "", None))
    assert door.asked == []


async def test_a_rotation_overlaps() -> None:
    """The former secret is good until its time; then the store has the last word."""
    former, present = token_of(1), token_of(2)
    key = replace(
        key_of(present),
        id=former.key_id,
        previous_sha256=former.secret_sha256,
        previous_until=MOMENT + MINUTE,
    )
    door = Door(key)
    assert await door.ask(former.text) == key
    door.now = MOMENT + MINUTE
    with pytest.raises(KeyInvalid):
        await door.ask(former.text)
    assert len(door.asked) == 1


async def test_an_unknown_key_is_looked_up() -> None:
    """It may have been made a moment ago."""
    door = Door()
    door.answer = key_of(TOKEN)
    assert await door.ask() == key_of(TOKEN)
    assert door.asked == [AuthenticateRequest(key_id=TOKEN.key_id, secret_sha256=TOKEN.secret_sha256)]


async def test_a_refusal_is_remembered_for_a_while() -> None:
    """The same bad key costs the store one look-up in five seconds."""
    door = Door()
    for _ in range(3):
        with pytest.raises(KeyInvalid):
            await door.ask()
    assert len(door.asked) == 1
    door.now_s += 5
    door.answer = key_of(TOKEN)
    assert await door.ask() == key_of(TOKEN)


async def test_what_is_remembered_is_bounded() -> None:
    """The oldest refusals go first."""
    door = Door()
    for number in range(2, 6):
        door.now_s += 1
        with pytest.raises(KeyInvalid):
            await door.ask(token_of(number).text)
    for number, asked in ((5, 4), (2, 5)):
        with pytest.raises(KeyInvalid):
            await door.ask(token_of(number).text)
        assert len(door.asked) == asked


async def test_look_ups_are_limited() -> None:
    """Two at once and one a second here; known keys are none of them."""
    door = Door(key_of(TOKEN))
    outcomes: list[type[WeirError]] = []
    for number in range(2, 6):
        with pytest.raises(WeirError) as caught:
            await door.ask(token_of(number).text)
        outcomes.append(caught.type)
    assert outcomes == [KeyInvalid, KeyInvalid, RateLimited, RateLimited]
    assert await door.ask() == key_of(TOKEN)
    door.now_s += 1
    with pytest.raises(KeyInvalid):
        await door.ask(token_of(6).text)


async def test_a_jwt_is_authenticates_to_verify() -> None:
    """Every time, its end included; it is neither a look-up nor remembered."""
    door = Door()
    door.answer = key_of(TOKEN)
    for _ in range(4):
        assert await door.ask(JWT) == key_of(TOKEN)
    assert door.asked == [AuthenticateRequest(jwt=JWT)] * 4


@pytest.mark.parametrize(
    ("scope", "age_s", "asked"),
    [
        (Scope.USAGE_READ, 900, 0),
        (Scope.USAGE_READ, 901, 1),
        (Scope.ADMIN, 30, 0),
        (Scope.ADMIN, 31, 1),
        (Scope.KEYS_WRITE, 31, 1),
    ],
)
async def test_what_is_stale_is_looked_up(scope: Scope, age_s: float, asked: int) -> None:
    """A key set that the store no longer feeds is believed for 15 minutes, and half a minute where much hangs on it."""
    key = with_scopes(Scope.ADMIN)
    door = Door(key)
    door.answer = key
    door.now_s += age_s
    assert await door.ask(scope=scope) == key
    assert len(door.asked) == asked


async def test_stale_and_without_a_store_is_closed() -> None:
    """An error that is no refusal: nobody can say."""
    door = Door(key_of(TOKEN))
    door.answer = UpstreamError("the key store cannot be reached")
    door.now_s += 901
    with pytest.raises(UpstreamError):
        await door.ask()
    assert door.rows == []


@pytest.mark.parametrize(
    ("held", "wanted", "passes"),
    [
        ((), None, True),
        ((), Scope.CHAT, True),
        ((), Scope.USAGE_READ, False),
        ((Scope.USAGE_READ,), Scope.USAGE_READ, True),
        ((Scope.USAGE_READ,), Scope.CHAT, False),
        ((Scope.ADMIN,), Scope.USAGE_READ, True),
        ((Scope.ADMIN,), Scope.KEYS_WRITE, True),
        ((Scope.ADMIN,), Scope.CHAT, False),
        ((Scope.ADMIN,), None, True),
        ((Scope.KEYS_WRITE,), Scope.ADMIN, False),
    ],
)
async def test_scopes(held: tuple[Scope, ...], wanted: Scope | None, *, passes: bool) -> None:
    """The one that the service asks for, or an administrator's; chat and embed are not an administrator's."""
    door = Door(with_scopes(*held))
    if passes:
        await door.ask(scope=wanted)
    else:
        with pytest.raises(Forbidden):
            await door.ask(scope=wanted)


@pytest.mark.parametrize(
    ("networks", "address", "passes"),
    [
        ([], "", True),
        (["10.0.0.0/8"], "10.1.2.3", True),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.0/8"], "11.1.2.3", False),
        (["10.0.0.0/8"], "", False),
        (["10.0.0.0/8"], "10.1.2.3:80", False),
        (["10.0.0.0/8"], "localhost", False),
        (["10.0.0.0/8", "2001:db8::/32"], "2001:db8::1", True),
        (["2001:db8::/32"], "2001:db9::1", False),
        (["0.0.0.0/0"], "2001:db8::1", False),
    ],
)
async def test_networks(networks: list[str], address: str, *, passes: bool) -> None:
    """An address that is unknown or malformed lies in none."""
    door = Door(with_networks(networks))
    if passes:
        await door.ask(address=address)
    else:
        with pytest.raises(Forbidden):
            await door.ask(address=address)


async def test_refusals_are_rows_of_the_audit() -> None:
    """Who, as far as it was recognised, what, from where and why; nothing of what was sent."""
    door = Door(key_of(TOKEN))
    with pytest.raises(Forbidden):
        await door.ask(scope=Scope.USAGE_READ)
    with pytest.raises(KeyInvalid):
        await door.ask(token_of(2).text)
    known, unknown = door.rows
    assert (known.action, known.subject, known.address) == (ACTION, "docs", "10.1.2.3")
    assert (known.refused, known.at, known.count) == (Reason.FORBIDDEN, MOMENT, 1)
    assert known.who == key_of(TOKEN).principal
    assert unknown.refused == Reason.KEY_INVALID
    assert unknown.who is not None
    assert unknown.who.key_id == ""
    assert token_of(2).secret not in repr(door.rows)


async def test_nobody_waits_for_a_row() -> None:
    """It is kept while the answer goes out, and the end waits for it."""
    kept: list[AuditEvent] = []
    may = asyncio.Event()

    async def record(event: AuditEvent) -> None:
        await may.wait()
        kept.append(event)

    aside = Aside(record)
    aside(AuditEvent(action=ACTION))
    closing = asyncio.create_task(aside.close())
    may.set()
    await closing
    assert kept == [AuditEvent(action=ACTION)]
