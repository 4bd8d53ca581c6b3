"""Who asks the ledger for a report."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from gen.weir.auth.v1 import AuthenticateRequest, AuthenticateResponse, Key, Scope
from gen.weir.auth.v1.service import AuthClient
from gen.weir.type.v1 import Principal
from meshkit.errors import (
    Forbidden,
    KeyExpired,
    KeyInvalid,
    KeyMissing,
    KeyRevoked,
    UpstreamError,
    UpstreamTimeout,
)
from meshkit.inprocess import InProcessTransport
from meshkit.telemetry import Logger
from meshkit.tokens import Token, mint
from services.ledger.adapters.auth import AuthKeys
from services.ledger.domain.reader import Team
from services.ledger.recognise import Recognise
from tests.fakes.auth import MOMENT, key_of, token_of

MEMORY = timedelta(milliseconds=500)
TICK = timedelta(milliseconds=1)
HERE = "ipv4:127.0.0.1:4711"
ASKED = AuthenticateRequest(key_id="id", secret_sha256=b"digest")


@dataclass
class Directory:
    """Auth, as far as the ledger asks it; `refuses` is what it raises instead of an answer."""

    key: Key = field(default_factory=lambda: key_of(token_of(1)))
    refuses: Exception | None = None
    asked: list[AuthenticateRequest] = field(default_factory=list)

    async def ask(self, request: AuthenticateRequest) -> Key:
        self.asked.append(request)
        if self.refuses is not None:
            raise self.refuses
        return self.key


class Now:
    """Both clocks of a test."""

    def __init__(self) -> None:
        self.passed = timedelta()

    def clock(self) -> datetime:
        return MOMENT + self.passed

    def monotonic(self) -> float:
        return self.passed.total_seconds()


def bearer(token: Token) -> str:
    return f"Bearer {token.text}"


def recognise(directory: Directory, now: Now, most: int = 10) -> Recognise:
    return Recognise(directory, now.clock, now.monotonic, MEMORY, most)


async def test_a_reader_is_whoever_holds_the_key() -> None:
    """Principal and scopes are the key's; its team is what it sees."""
    directory = Directory()
    directory.key.scopes = [Scope.USAGE_READ]
    reader = await recognise(directory, Now())(bearer(token_of(1)), HERE)
    assert reader.principal == directory.key.principal
    assert reader.scopes == {Scope.USAGE_READ}
    assert reader.sees == Team("acme", "search")
    token = token_of(1)
    assert directory.asked == [AuthenticateRequest(key_id=token.key_id, secret_sha256=token.secret_sha256)]


async def test_an_admin_sees_everybody() -> None:
    """No team limits it."""
    directory = Directory()
    directory.key.scopes = [Scope.ADMIN]
    assert (await recognise(directory, Now())(bearer(token_of(1)), HERE)).sees is None


async def test_a_key_of_nobody_sees_nobody() -> None:
    """An answer without a principal is not everybody's."""
    directory = Directory(Key(id="x", scopes=[Scope.USAGE_READ]))
    reader = await recognise(directory, Now())(bearer(token_of(1)), HERE)
    assert (reader.principal, reader.sees) == (Principal(), Team("", ""))


async def test_auth_is_asked_once_within_the_memory() -> None:
    """And again when it ends: a key revoked meanwhile is refused from then on."""
    directory, now = Directory(), Now()
    who = recognise(directory, now)
    for _ in range(3):
        await who(bearer(token_of(1)), HERE)
    now.passed = MEMORY - TICK
    await who(bearer(token_of(1)), HERE)
    assert len(directory.asked) == 1
    directory.refuses = KeyRevoked("the key was revoked")
    now.passed = MEMORY
    with pytest.raises(KeyRevoked):
        await who(bearer(token_of(1)), HERE)
    assert len(directory.asked) == 2


async def test_a_wrong_secret_does_not_live_on_the_right_one() -> None:
    """What is remembered is the digest too."""
    directory, right = Directory(), token_of(1)
    who = recognise(directory, Now())
    await who(bearer(right), HERE)
    directory.refuses = KeyInvalid("the key is not known")
    with pytest.raises(KeyInvalid):
        await who(bearer(_same_id(right)), HERE)


def _same_id(token: Token) -> Token:
    """Another secret of the same key, well formed."""
    id_bytes, body_bytes = 8, 32
    other = {id_bytes: (1).to_bytes(id_bytes, "big"), body_bytes: (2).to_bytes(body_bytes, "big")}
    return mint(other.__getitem__)


async def test_a_remembered_key_ends_when_it_expires() -> None:
    """The memory never outlives the key."""
    directory, now = Directory(key_of(token_of(1), expires_at=MOMENT + TICK)), Now()
    who = recognise(directory, now)
    await who(bearer(token_of(1)), HERE)
    now.passed = TICK
    with pytest.raises(KeyExpired):
        await who(bearer(token_of(1)), HERE)
    assert len(directory.asked) == 1


async def test_refusals_are_not_remembered() -> None:
    """A key that was made a moment ago works at once."""
    directory = Directory(refuses=KeyInvalid("the key is not known"))
    who = recognise(directory, Now())
    with pytest.raises(KeyInvalid):
        await who(bearer(token_of(1)), HERE)
    directory.refuses = None
    assert (await who(bearer(token_of(1)), HERE)).principal == directory.key.principal


async def test_the_memory_is_bounded() -> None:
    """The oldest answer goes first."""
    directory = Directory()
    who = recognise(directory, Now(), most=2)
    for number in (1, 2, 3, 3, 2, 1):
        await who(bearer(token_of(number)), HERE)
    assert [request.key_id for request in directory.asked] == [token_of(n).key_id for n in (1, 2, 3, 1)]
    assert len(who._known) == 2


@pytest.mark.parametrize("header", [None, "", "Bearer", b"Bearer "])
async def test_nothing_sent(header: str | bytes | None) -> None:
    """It says what to send, and Auth is not asked."""
    directory = Directory()
    with pytest.raises(KeyMissing, match="Authorization: Bearer"):
        await recognise(directory, Now())(header, HERE)
    assert directory.asked == []


async def test_a_mistyped_key_costs_auth_nothing() -> None:
    """Its checksum tells."""
    directory = Directory()
    with pytest.raises(KeyInvalid):
        await recognise(directory, Now())(bearer(token_of(1))[:-1] + "0", HERE)
    assert directory.asked == []


@pytest.mark.parametrize(
    ("networks", "peer", "allowed"),
    [
        ((), "unix:", True),
        (("10.0.0.0/8", "127.0.0.0/8"), HERE, True),
        (("10.0.0.0/8",), HERE, False),
        (("10.0.0.0/8",), "ipv6:%5B::ffff:10.1.2.3%5D:80", True),
        (("2001:db8::/32",), "ipv6:[2001:db8::1]:80", True),
        (("2001:db8::/32",), HERE, False),
        (("0.0.0.0/0", "::/0"), "unix:", False),
        (("0.0.0.0/0", "::/0"), "", False),
        (("10.0.0.0/8",), "ipv4:rubbish", False),
    ],
)
async def test_a_key_keeps_to_its_networks(networks: tuple[str, ...], peer: str, *, allowed: bool) -> None:
    """Also where it is remembered: the same key from elsewhere is refused."""
    directory = Directory()
    directory.key.networks = list(networks)
    who = recognise(directory, Now())
    for _ in range(2):
        if allowed:
            await who(bearer(token_of(1)), peer)
        else:
            with pytest.raises(Forbidden, match="from this address"):
                await who(bearer(token_of(1)), peer)
    assert len(directory.asked) == 1


async def test_a_jwt_is_auth_s_to_judge() -> None:
    """It goes there as it is, and its answer is remembered like a key's; another one is asked about anew."""
    directory = Directory()
    who = recognise(directory, Now())
    header = b64encode(b'{"alg":"ES256","kid":"k"}').decode().rstrip("=")
    one, other = (f"{header}.{'e' * 40}.{letter * 86}" for letter in "ab")
    for jwt in (one, one, other):
        await who(f"bearer {jwt}", HERE)
    assert directory.asked == [AuthenticateRequest(jwt=one), AuthenticateRequest(jwt=other)]


class Answers:
    """Auth with one answer."""

    def __init__(self, answers: Sequence[AuthenticateResponse | Exception]) -> None:
        self._answers = iter(answers)

    async def authenticate(self, request: AuthenticateRequest, context: object) -> AuthenticateResponse:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        assert request.secret_sha256 == b"digest"
        return answer


async def test_what_auth_says_reaches_the_ledger() -> None:
    """Its key, its refusals as they are, its absence as an outage, and an answer without a key as none."""
    key = key_of(token_of(1))
    answers: list[AuthenticateResponse | Exception] = [
        AuthenticateResponse(key=key), KeyRevoked("the key was revoked"), UpstreamTimeout("late"),
        AuthenticateResponse(),
    ]  # fmt: skip
    client = AuthClient(InProcessTransport(Answers(answers), Logger("test")))
    keys = AuthKeys(client, timedelta(seconds=5))
    assert await keys.ask(ASKED) == key
    with pytest.raises(KeyRevoked):
        await keys.ask(ASKED)
    with pytest.raises(UpstreamError, match="cannot be checked now"):
        await keys.ask(ASKED)
    with pytest.raises(KeyInvalid):
        await keys.ask(ASKED)
