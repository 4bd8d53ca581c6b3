"""CreateKey over a store in memory."""

import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from gen.weir.auth.v1 import CreateKeyRequest, Limits, Scope
from meshkit.errors import Forbidden, InvalidRequest
from meshkit.tokens import parse
from meshkit.wire_time import NanoDatetime
from services.auth.create_key import CreateKey
from services.auth.domain.admin import Admin
from services.auth.ports import KeyIdTaken
from tests.fakes.auth import ADMIN, MOMENT, FakeKeyStore, writer


def _create(store: FakeKeyStore) -> CreateKey:
    return CreateKey(store, lambda: MOMENT, secrets.token_bytes)


async def test_the_key_is_kept_without_its_secret() -> None:
    """The answer has the token; the store has its digest alone, and the very key that was answered."""
    store = FakeKeyStore()
    expires_at = MOMENT + timedelta(days=1)
    request = CreateKeyRequest(
        org="acme",
        team="Forschung und Entwicklung",
        label="für CI",
        expires_at=expires_at,
        models=["gpt-4o*", "local"],
        targets=["triton-[ab]"],
    )
    made = await _create(store)(request, ADMIN)
    token = parse(made.token)
    kept = await store.find(token.key_id)
    assert kept == made.key
    assert kept is not None
    assert kept.principal is not None
    assert kept.secret_sha256 == token.secret_sha256
    assert (kept.principal.key_id, kept.principal.org) == (token.key_id, "acme")
    assert (kept.created_at, kept.expires_at, kept.revoked_at) == (MOMENT, expires_at, None)
    assert (kept.models, kept.targets) == (["gpt-4o*", "local"], ["triton-[ab]"])
    assert token.secret not in repr(store.changes)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"org": ""}, "org"),
        ({"team": ""}, "team"),
        ({"org": " "}, "org"),
        ({"org": "acme "}, "org"),
        ({"team": "a\0b"}, "team"),
        ({"team": "a\nb"}, "team"),
        ({"org": "x" * 101}, "org"),
        ({"team": "x" * 101}, "team"),
        ({"label": "x" * 201}, "label"),
        ({"label": "\u202e"}, "label"),
        ({"models": [""]}, "models"),
        ({"models": ["ok", "two words"]}, "models"),
        ({"models": ["ok\n"]}, "models"),
        ({"models": ["\x7f"]}, "models"),
        ({"targets": ["modèle"]}, "targets"),
        ({"targets": ["x" * 129]}, "targets"),
        ({"models": ["x"] * 101}, "models"),
        ({"targets": ["x"] * 101}, "targets"),
        ({"owner": "x" * 101}, "owner"),
        ({"owner": " ada"}, "owner"),
        ({"labels": {f"n{number}": "" for number in range(21)}}, "labels"),
        ({"labels": {"": "x"}}, "labels"),
        ({"labels": {"Stage": "x"}}, "labels"),
        ({"labels": {"x" * 64: "x"}}, "labels"),
        ({"labels": {"stage": "x" * 201}}, "labels"),
        ({"labels": {"stage": "two\nlines"}}, "labels"),
        ({"networks": ["10.0.0.0/8"] * 51}, "networks"),
        ({"networks": [""]}, "networks"),
        ({"networks": ["ten"]}, "networks"),
        ({"networks": ["10.0.0.1/8"]}, "networks"),
        ({"networks": ["10.0.0.0/33"]}, "networks"),
        ({"networks": ["10.0.0.0/8 "]}, "networks"),
        ({"networks": ["fe80::%eth0/64"]}, "networks"),
        ({"networks": ["::ffff:10.0.0.0/104"]}, "networks"),
        ({"networks": ["0" * 65]}, "networks"),
        ({"scopes": [Scope.UNSPECIFIED]}, "scopes"),
        ({"scopes": [Scope.CHAT, Scope(99)]}, "scopes"),
        ({"limits": Limits(requests_per_minute=-1)}, "limits.requests_per_minute"),
        ({"limits": Limits(tokens_per_minute=10**12 + 1)}, "limits.tokens_per_minute"),
        ({"limits": Limits(concurrent_requests=-1)}, "limits.concurrent_requests"),
        ({"limits": Limits(context_tokens=2**62)}, "limits.context_tokens"),
        ({"expires_at": MOMENT}, "expires_at"),
        ({"expires_at": MOMENT - timedelta(days=1)}, "expires_at"),
        ({"expires_at": datetime(2099, 1, 1)}, "expires_at"),  # noqa: DTZ001 - that is the fault
    ],
)
async def test_a_bad_request_names_its_field(fields: dict[str, Any], param: str) -> None:
    """Nothing is kept, and the field at fault is named."""
    store = FakeKeyStore()
    with pytest.raises(InvalidRequest) as refused:
        await _create(store)(CreateKeyRequest(**{"org": "acme", "team": "search", **fields}), ADMIN)
    assert refused.value.param == param
    assert not store.changes


@pytest.mark.parametrize(
    "fields",
    [
        {"org": "x" * 100},
        {"team": "x" * 100},
        {"label": "x" * 200},
        {"owner": "x" * 100},
        {"labels": {("x" * 60 + f"{number:03}"): "y" * 200 for number in range(20)}},
        {"networks": [f"10.{number}.0.0/16" for number in range(50)]},
        {"scopes": [Scope.CHAT, Scope.EMBED, Scope.USAGE_READ, Scope.KEYS_WRITE, Scope.ADMIN]},
        {"limits": Limits(10**12, 10**12, 10**12, 10**12)},
        {"models": ["x" * 128] * 100},
        {"targets": [chr(code) for code in range(0x21, 0x7F)]},
    ],
)
async def test_the_limits_themselves_are_allowed(fields: dict[str, Any]) -> None:
    """At most means that the number itself passes."""
    request = CreateKeyRequest(**{"org": "acme", "team": "search", **fields})
    made = await _create(FakeKeyStore())(request, ADMIN)
    assert made.token


async def test_the_answer_has_the_expiry_as_stored() -> None:
    """The store keeps microseconds, so the answer does not claim nanoseconds."""
    expires_at = NanoDatetime.extend(MOMENT + timedelta(days=1), 999)
    request = CreateKeyRequest(org="a", team="b", expires_at=expires_at)
    made = await _create(FakeKeyStore())(request, ADMIN)
    assert made.key is not None
    assert made.key.expires_at == MOMENT + timedelta(days=1)
    assert not getattr(made.key.expires_at, "sub_micro_ns", 0)


async def test_an_id_in_use_is_never_given_to_another_key() -> None:
    """The first key stays; the second is refused."""
    store = FakeKeyStore()
    create = CreateKey(store, lambda: MOMENT, bytes)
    first = await create(CreateKeyRequest(org="acme", team="search"), ADMIN)
    with pytest.raises(KeyIdTaken):
        await create(CreateKeyRequest(org="evil", team="search"), ADMIN)
    assert first.key is not None
    assert await store.find(first.key.id) == first.key


async def test_identity_is_kept_in_one_spelling() -> None:
    """Networks as the store writes them, each once; scopes in their order; what was not said is what is usual."""
    store = FakeKeyStore()
    request = CreateKeyRequest(
        org="acme",
        team="search",
        owner="ada",
        labels={"stage": "prod", "cost/centre": ""},
        networks=["10.1.2.3", "10.0.0.0/255.0.0.0", "10.0.0.0/8", "2001:DB8:0::/32"],
        scopes=[Scope.ADMIN, Scope.CHAT, Scope.ADMIN],
        limits=Limits(requests_per_minute=7),
    )
    key = (await _create(store)(request, ADMIN)).key
    assert key is not None
    assert (key.owner, key.labels) == ("ada", {"stage": "prod", "cost/centre": ""})
    assert key.networks == ["10.1.2.3/32", "10.0.0.0/8", "2001:db8::/32"]
    assert (key.scopes, key.limits) == ([Scope.CHAT, Scope.ADMIN], Limits(requests_per_minute=7))
    plain = (await _create(store)(CreateKeyRequest(org="acme", team="search"), ADMIN)).key
    assert plain is not None
    assert (plain.scopes, plain.limits, plain.sampling) == ([Scope.CHAT, Scope.EMBED], None, 0.0)


async def test_a_network_that_is_an_address_is_told_what_it_lies_in() -> None:
    """The message has the block that was surely meant."""
    with pytest.raises(InvalidRequest, match=r"10\.0\.0\.0/8"):
        await _create(FakeKeyStore())(CreateKeyRequest(org="a", team="b", networks=["10.0.0.1/8"]), ADMIN)


@pytest.mark.parametrize(
    ("fields", "admin"),
    [
        ({"scopes": [Scope.CHAT]}, replace(ADMIN, scopes=frozenset({Scope.CHAT, Scope.USAGE_READ}))),
        ({"scopes": [Scope.CHAT]}, writer(Scope.CHAT, org="other")),
        ({"scopes": [Scope.CHAT]}, writer(Scope.CHAT, team="other")),
        ({"scopes": [Scope.CHAT]}, writer(Scope.EMBED)),
        ({}, writer(Scope.CHAT)),
        ({"scopes": [Scope.ADMIN]}, writer(Scope.CHAT, Scope.EMBED, Scope.USAGE_READ)),
    ],
)
async def test_what_is_beyond_ones_reach_is_forbidden(fields: dict[str, Any], admin: Admin) -> None:
    """Without a scope for it; for another org or team; with a scope that one lacks, the usual ones among them."""
    store = FakeKeyStore()
    with pytest.raises(Forbidden):
        await _create(store)(CreateKeyRequest(**{"org": "acme", "team": "search", **fields}), admin)
    assert not store.changes
    assert not store.audit.events


async def test_a_team_makes_keys_with_scopes_of_its_own() -> None:
    """keys:write among them."""
    request = CreateKeyRequest(org="acme", team="search", scopes=[Scope.CHAT, Scope.KEYS_WRITE])
    made = await _create(FakeKeyStore())(request, writer(Scope.CHAT))
    assert made.key is not None
    assert made.key.scopes == [Scope.CHAT, Scope.KEYS_WRITE]


async def test_the_audit_has_a_row_of_it() -> None:
    """Who, what, from where; nothing of the secret."""
    store = FakeKeyStore()
    made = await _create(store)(CreateKeyRequest(org="acme", team="search", label="ci"), ADMIN)
    assert made.key is not None
    (row,) = store.audit.events
    assert (row.who, row.action, row.subject) == (ADMIN.principal, "keys.create", made.key.id)
    assert (row.address, row.peer, row.refused, row.count) == ("10.1.2.3", "operator", 0, 1)
    assert row.at == MOMENT
    assert "scopes chat,embed" in row.detail
    assert parse(made.token).secret not in repr(row)
