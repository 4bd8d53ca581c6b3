"""Every administrative RPC against every key that must not use it, and what each scope may do, on the running mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from betterproto2 import Message

from gen.rpc import Method
from gen.weir.auth.v1 import (
    CreateKeyRequest,
    GetKeyRequest,
    KeepSamplesRequest,
    LeaseRateRequest,
    ListAuditRequest,
    ListKeysRequest,
    ListSamplesRequest,
    ReportRefusalsRequest,
    RevokeKeyRequest,
    RotateKeyRequest,
    Scope,
    SetKeySamplingRequest,
    WatchKeysRequest,
)
from gen.weir.auth.v1 import service as auth
from gen.weir.ledger.v1 import UsageRequest
from gen.weir.ledger.v1.service import USAGE
from meshkit.errors import Forbidden, KeyExpired, KeyInvalid, KeyMissing, KeyRevoked, WeirError
from tests.harness.reply import post
from tests.harness.running_weir import wait_for
from tests.harness.stronghold import Stronghold
from tests.security.administration import EAST, ORG, WEST, Desk, bearer, id_of, stolen, unknown

pytestmark = pytest.mark.xdist_group("security")
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def desk(stronghold: Stronghold) -> Desk:
    """Where the mesh is administered."""
    return Desk(stronghold)


@dataclass(frozen=True)
class Keys:
    """Tokens by what they are."""

    by_name: Mapping[str, str]
    digests: frozenset[bytes]
    """Of every secret that they have or had."""

    def __getitem__(self, name: str) -> str:
        return self.by_name[name]


@pytest.fixture(scope="module")
def keys(desk: Desk) -> Keys:
    """The victim, rotated once so that it has two secrets, and whoever would like to have it."""
    former = desk.make(Scope.CHAT, label="victim")
    made = {
        "victim": desk.rotate(former, HOUR),
        "east": desk.make(Scope.CHAT, team=EAST),
        "embed": desk.make(Scope.EMBED),
        "crowned": desk.make(Scope.ADMIN),
        "revoked": desk.make(Scope.ADMIN),
        "expired": desk.make(Scope.ADMIN),
        "chat alone": desk.make(Scope.CHAT),
        "reader": desk.make(Scope.USAGE_READ),
        "stranger": desk.make(Scope.KEYS_WRITE, Scope.CHAT, team=EAST),
        "namesake": desk.make(Scope.KEYS_WRITE, Scope.CHAT, org="palace"),
        "writer": desk.make(Scope.KEYS_WRITE, Scope.CHAT),
        "former": former,
    }
    desk.revoke(made["revoked"])
    desk.stronghold.expire(made["expired"])
    digests = frozenset(sha256(_secret(token).encode()).digest() for token in made.values())
    return Keys(made, digests)


def _secret(token: str) -> str:
    return token.rpartition("_")[2]


CREDENTIALS: Mapping[str, tuple[type[WeirError], Any]] = {
    "no key": (KeyMissing, lambda desk, keys: None),
    "scheme alone": (KeyMissing, lambda desk, keys: "Bearer"),
    "rubbish": (KeyInvalid, lambda desk, keys: "Bearer weir_x_y"),
    "another scheme": (KeyInvalid, lambda desk, keys: f"Basic {desk.admin}"),
    "unknown": (KeyInvalid, lambda desk, keys: bearer(unknown())),
    "wrong secret": (KeyInvalid, lambda desk, keys: bearer(stolen(desk.admin))),
    "revoked": (KeyRevoked, lambda desk, keys: bearer(keys["revoked"])),
    "expired": (KeyExpired, lambda desk, keys: bearer(keys["expired"])),
    "unsigned token": (KeyInvalid, lambda desk, keys: bearer(desk.stronghold.unsigned())),
    "user's token": (Forbidden, lambda desk, keys: bearer(desk.stronghold.jwt())),
    "chat alone": (Forbidden, lambda desk, keys: bearer(keys["chat alone"])),
    "reader": (Forbidden, lambda desk, keys: bearer(keys["reader"])),
    "stranger": (Forbidden, lambda desk, keys: bearer(keys["stranger"])),
    "namesake": (Forbidden, lambda desk, keys: bearer(keys["namesake"])),
    "writer": (Forbidden, lambda desk, keys: bearer(keys["writer"])),
}
"""The error, and the Authorization header's value. A namesake's team has the victim's team's name in another org."""

REQUESTS: Mapping[Method, Any] = {
    auth.CREATE_KEY: lambda victim: CreateKeyRequest(org=ORG, team=WEST, scopes=[Scope.CHAT]),
    auth.LIST_KEYS: lambda victim: ListKeysRequest(org=ORG, team=WEST, ended=True),
    auth.GET_KEY: lambda victim: GetKeyRequest(key_id=victim),
    auth.ROTATE_KEY: lambda victim: RotateKeyRequest(key_id=victim, overlap=HOUR),
    auth.REVOKE_KEY: lambda victim: RevokeKeyRequest(key_id=victim),
    auth.SET_KEY_SAMPLING: lambda victim: SetKeySamplingRequest(key_id=victim, share=1.0),
    auth.LIST_AUDIT: lambda victim: ListAuditRequest(),
    auth.LIST_SAMPLES: lambda victim: ListSamplesRequest(key_id=victim),
    USAGE: lambda victim: UsageRequest(),
}
ALLOWED = {
    *(("writer", auth.CREATE_KEY), ("writer", auth.LIST_KEYS), ("writer", auth.GET_KEY)),
    *(("writer", auth.ROTATE_KEY), ("writer", auth.REVOKE_KEY)),
    ("reader", USAGE),
}
"""Shown further down."""
REFUSED = [(method, name) for method in REQUESTS for name in CREDENTIALS if (name, method) not in ALLOWED]


def do(desk: Desk, method: Method, request: Message, token: str | None) -> Any:
    """Calls the service that the RPC is of."""
    authorization = None if token is None else bearer(token)
    return desk.ask(method, request, authorization, "ledger" if method is USAGE else "auth")


@pytest.mark.parametrize(("method", "name"), REFUSED, ids=lambda value: getattr(value, "name", value))
def test_a_key_that_must_not(desk: Desk, keys: Keys, method: Method, name: str) -> None:
    """The error says which wrong it is, repeats no secret, and nothing is other than before."""
    noun, offered = CREDENTIALS[name]
    before = desk.state()
    authorization = offered(desk, keys)
    service = "ledger" if method is USAGE else "auth"
    with pytest.raises(noun) as caught:
        desk.ask(method, REQUESTS[method](id_of(keys["victim"])), authorization, service)  # type: ignore[arg-type] # a literal
    assert desk.state() == before
    offered_secret = (authorization or "").rpartition("_")[2]
    assert len(offered_secret) < len("Bearer weir") or offered_secret not in str(caught.value)


@pytest.mark.parametrize("method", REQUESTS, ids=lambda method: method.name)
def test_an_admin_may(desk: Desk, keys: Keys, method: Method) -> None:
    """Else the refusals would show nothing. No secret and no digest is in any answer but where a token is shown."""
    answer = do(desk, method, REQUESTS[method](id_of(desk.make(Scope.CHAT))), desk.admin)
    raw = bytes(answer)
    assert not any(digest in raw for digest in keys.digests)
    assert not any(_secret(token).encode() in raw for token in (*keys.by_name.values(), desk.admin))
    if method not in {auth.CREATE_KEY, auth.ROTATE_KEY}:
        for key in (*getattr(answer, "keys", ()), *filter(None, [getattr(answer, "key", None)])):
            assert (key.secret_sha256, key.previous_sha256) == (b"", b"")


def test_a_writer_keeps_its_own_team(desk: Desk, keys: Keys) -> None:
    """It makes, lists, shows, rotates and revokes keys of its team."""
    writer = keys["writer"]
    request = CreateKeyRequest(org=ORG, team=WEST, scopes=[Scope.CHAT])
    made = id_of(do(desk, auth.CREATE_KEY, request, writer).token)
    listed = do(desk, auth.LIST_KEYS, ListKeysRequest(ended=True), writer).keys
    assert {(key.principal.org, key.principal.team) for key in listed} == {(ORG, WEST)}
    assert {made, id_of(keys["victim"])} <= {key.id for key in listed}
    assert do(desk, auth.GET_KEY, GetKeyRequest(key_id=made), writer).key.id == made
    rotated = do(desk, auth.ROTATE_KEY, RotateKeyRequest(key_id=made), writer)
    assert id_of(rotated.token) == made
    ended = do(desk, auth.REVOKE_KEY, RevokeKeyRequest(key_id=made), writer)
    assert ended.key.revoked_at is not None


@pytest.mark.parametrize(
    "request_",
    [
        CreateKeyRequest(org=ORG, team=EAST, scopes=[Scope.CHAT]),
        CreateKeyRequest(org="palace", team=WEST, scopes=[Scope.CHAT]),
        CreateKeyRequest(org=f"{ORG} ", team=WEST, scopes=[Scope.CHAT]),
        CreateKeyRequest(org=ORG.upper(), team=WEST, scopes=[Scope.CHAT]),
        CreateKeyRequest(org=ORG, team=WEST, scopes=[Scope.ADMIN]),
        CreateKeyRequest(org=ORG, team=WEST, scopes=[Scope.CHAT, Scope.USAGE_READ]),
        CreateKeyRequest(org=ORG, team=WEST, scopes=[Scope.EMBED]),
        CreateKeyRequest(org=ORG, team=WEST),
    ],
    ids=["team", "org", "blank", "case", "admin", "usage:read", "embed", "the usual scopes"],
)
def test_a_writer_gives_no_more_than_it_has(desk: Desk, keys: Keys, request_: CreateKeyRequest) -> None:
    """No other team's key, and no scope that it lacks, not even one that comes by itself."""
    before = desk.state()
    with pytest.raises(WeirError) as caught:
        do(desk, auth.CREATE_KEY, request_, keys["writer"])
    assert caught.value.mapped.http_status in {400, 403}
    assert desk.state() == before


@pytest.mark.parametrize(
    ("method", "name"),
    [(auth.ROTATE_KEY, "crowned"), (auth.REVOKE_KEY, "crowned"), (auth.ROTATE_KEY, "embed")],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_writer_takes_no_better_key(desk: Desk, keys: Keys, method: Method, name: str) -> None:
    """A new secret of a key with more scopes would be more scopes; an administrator's key it cannot even end."""
    before = desk.state()
    with pytest.raises(Forbidden):
        do(desk, method, REQUESTS[method](id_of(keys[name])), keys["writer"])
    assert desk.state() == before


def test_a_writer_cannot_tell_what_there_is_elsewhere(desk: Desk, keys: Keys) -> None:
    """Another team's key and one that does not exist are refused in the same words."""
    said = set()
    for key_id in (id_of(keys["east"]), id_of(unknown())):
        with pytest.raises(Forbidden) as caught:
            do(desk, auth.GET_KEY, GetKeyRequest(key_id=key_id), keys["writer"])
        said.add(str(caught.value))
    assert len(said) == 1


def test_a_page_token_leads_nowhere_else(desk: Desk, keys: Keys) -> None:
    """An administrator's place in the list of all keys shows a writer its own team's alone."""
    page = do(desk, auth.LIST_KEYS, ListKeysRequest(page_size=1, ended=True), desk.admin)
    request = ListKeysRequest(page_token=page.next_page_token, ended=True)
    listed = do(desk, auth.LIST_KEYS, request, keys["writer"]).keys
    assert {key.principal.team for key in listed} == {WEST}


_QUESTION = {"messages": [{"role": "user", "content": "hi"}]}


def test_usage_is_its_teams_own(desk: Desk, keys: Keys) -> None:
    """usage:read sees the rows of its org and team, admin sees all."""
    edge = desk.stronghold.weir.edge
    for name in ("victim", "east"):
        wait_for(name, lambda name=name: post(edge, keys[name], _QUESTION).status == 200)  # type: ignore[misc] # bound on purpose

    def teams(token: str) -> set[tuple[str, str]]:
        rows = do(desk, USAGE, UsageRequest(), token).rows
        return {(row.principal.org, row.principal.team) for row in rows}

    wait_for("both rows", lambda: {(ORG, WEST), (ORG, EAST)} <= teams(desk.admin))
    assert teams(keys["reader"]) == {(ORG, WEST)}
    holder = desk.stronghold.jwt(realm_access={"roles": ["weir-readers"]})
    assert not {(ORG, WEST), (ORG, EAST)} & teams(holder)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (auth.WATCH_KEYS, WatchKeysRequest()),
        (auth.LEASE_RATE, LeaseRateRequest(holder="x")),
        (auth.REPORT_REFUSALS, ReportRefusalsRequest()),
        (auth.KEEP_SAMPLES, KeepSamplesRequest()),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_an_admin_is_no_router(desk: Desk, method: Method, request_: Message) -> None:
    """The digests of all keys, and what only routers may say, are not for people, whatever key they have."""
    with pytest.raises(Forbidden):
        do(desk, method, request_, desk.admin)
