"""CreateKey over a store in memory."""

import secrets
from datetime import datetime, timedelta
from typing import Any

import pytest

from gen.weir.auth.v1 import CreateKeyRequest
from meshkit.errors import InvalidRequest
from meshkit.tokens import parse
from meshkit.wire_time import NanoDatetime
from services.auth.create_key import CreateKey
from services.auth.ports import KeyIdTaken
from tests.fakes.auth import MOMENT, FakeKeyStore


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
    made = await _create(store)(request)
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
        ({"expires_at": MOMENT}, "expires_at"),
        ({"expires_at": MOMENT - timedelta(days=1)}, "expires_at"),
        ({"expires_at": datetime(2099, 1, 1)}, "expires_at"),  # noqa: DTZ001 - that is the fault
    ],
)
async def test_a_bad_request_names_its_field(fields: dict[str, Any], param: str) -> None:
    """Nothing is kept, and the field at fault is named."""
    store = FakeKeyStore()
    with pytest.raises(InvalidRequest) as refused:
        await _create(store)(CreateKeyRequest(**{"org": "acme", "team": "search", **fields}))
    assert refused.value.param == param
    assert not store.changes


@pytest.mark.parametrize(
    "fields",
    [
        {"org": "x" * 100},
        {"team": "x" * 100},
        {"label": "x" * 200},
        {"models": ["x" * 128] * 100},
        {"targets": [chr(code) for code in range(0x21, 0x7F)]},
    ],
)
async def test_the_limits_themselves_are_allowed(fields: dict[str, Any]) -> None:
    """At most means that the number itself passes."""
    made = await _create(FakeKeyStore())(CreateKeyRequest(**{"org": "acme", "team": "search", **fields}))
    assert made.token


async def test_the_answer_has_the_expiry_as_stored() -> None:
    """The store keeps microseconds, so the answer does not claim nanoseconds."""
    expires_at = NanoDatetime.extend(MOMENT + timedelta(days=1), 999)
    made = await _create(FakeKeyStore())(CreateKeyRequest(org="a", team="b", expires_at=expires_at))
    assert made.key is not None
    assert made.key.expires_at == MOMENT + timedelta(days=1)
    assert not getattr(made.key.expires_at, "sub_micro_ns", 0)


async def test_an_id_in_use_is_never_given_to_another_key() -> None:
    """The first key stays; the second is refused."""
    store = FakeKeyStore()
    create = CreateKey(store, lambda: MOMENT, bytes)
    first = await create(CreateKeyRequest(org="acme", team="search"))
    with pytest.raises(KeyIdTaken):
        await create(CreateKeyRequest(org="evil", team="search"))
    assert first.key is not None
    assert await store.find(first.key.id) == first.key
