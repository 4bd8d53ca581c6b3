"""Authenticate over a store in memory."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from gen.weir.auth.v1 import AuthenticateRequest
from meshkit.errors import KeyExpired, KeyInvalid, KeyRevoked, UpstreamError, WeirError
from services.auth.authenticate import Authenticate
from tests.fakes.auth import MOMENT, FakeKeyStore, key_of, token_of

_GOOD, _OTHER = token_of(1), token_of(2)


def _ask(key_id: str, secret_sha256: bytes) -> AuthenticateRequest:
    return AuthenticateRequest(key_id=key_id, secret_sha256=secret_sha256)


async def test_a_good_token_gives_its_key() -> None:
    """Id and digest that belong together."""
    store = FakeKeyStore()
    await store.add(key_of(_GOOD, expires_at=MOMENT + timedelta(microseconds=1)))
    key = await Authenticate(store, lambda: MOMENT)(_ask(_GOOD.key_id, _GOOD.secret_sha256))
    assert key.principal is not None
    assert (key.id, key.principal.org, key.principal.team) == (_GOOD.key_id, "acme", "search")


@pytest.mark.parametrize(
    ("key_id", "digest"),
    [
        (_OTHER.key_id, _OTHER.secret_sha256),
        (_GOOD.key_id, _OTHER.secret_sha256),
        (_OTHER.key_id, bytes(32)),
        (_GOOD.key_id, b""),
        (_GOOD.key_id, _GOOD.secret_sha256[:31]),
        ("", b""),
        ("a\0b", bytes(32)),
        ("x" * 1_000_000, bytes(32)),
    ],
)
async def test_an_unknown_or_wrong_one_is_invalid(key_id: str, digest: bytes) -> None:
    """One answer for all, so that nobody learns which keys exist."""
    store = FakeKeyStore()
    await store.add(key_of(_GOOD))
    with pytest.raises(KeyInvalid) as refused:
        await Authenticate(store, lambda: MOMENT)(_ask(key_id, digest))
    assert refused.value.message == "the key is not known here, or its secret is wrong"


@pytest.mark.parametrize(
    ("moment", "was_revoked", "kind"),
    [
        (MOMENT, False, KeyExpired),
        (MOMENT - timedelta(days=1), False, KeyExpired),
        (MOMENT - timedelta(days=1), True, KeyRevoked),
        (None, True, KeyRevoked),
    ],
)
async def test_a_key_at_its_end_is_refused_by_name(
    moment: datetime | None, *, was_revoked: bool, kind: type[WeirError]
) -> None:
    """Expiry is exclusive; revocation comes first; and only the holder of the secret is told which."""
    store = FakeKeyStore()
    await store.add(key_of(_GOOD, expires_at=moment, revoked_at=MOMENT if was_revoked else None))
    authenticate = Authenticate(store, lambda: MOMENT)
    with pytest.raises(kind):
        await authenticate(_ask(_GOOD.key_id, _GOOD.secret_sha256))
    with pytest.raises(KeyInvalid):
        await authenticate(_ask(_GOOD.key_id, _OTHER.secret_sha256))


async def test_a_store_that_is_away_is_no_verdict_on_the_key() -> None:
    """The caller learns that nobody could say, not that the key is bad."""
    store = FakeKeyStore()
    store.away = True
    with pytest.raises(UpstreamError):
        await Authenticate(store, lambda: MOMENT)(_ask(_GOOD.key_id, _GOOD.secret_sha256))


async def test_a_former_secret_is_good_while_the_rotation_overlaps() -> None:
    """Beside the new one; its end is exclusive, and then it is as wrong as any other."""
    key = replace(
        key_of(_OTHER), previous_sha256=_GOOD.secret_sha256, previous_until=MOMENT + timedelta(seconds=1)
    )
    store = FakeKeyStore()
    await store.add(key)
    for secret in (_OTHER.secret_sha256, _GOOD.secret_sha256):
        assert await Authenticate(store, lambda: MOMENT)(_ask(key.id, secret)) == key
    later = Authenticate(store, lambda: MOMENT + timedelta(seconds=1))
    assert await later(_ask(key.id, _OTHER.secret_sha256)) == key
    with pytest.raises(KeyInvalid):
        await later(_ask(key.id, _GOOD.secret_sha256))


async def test_no_former_secret_is_no_secret() -> None:
    """A key that was never rotated is opened neither by nothing nor by zeros."""
    store = FakeKeyStore()
    await store.add(replace(key_of(_GOOD), previous_until=MOMENT + timedelta(days=1)))
    for digest in (b"", bytes(32)):
        with pytest.raises(KeyInvalid):
            await Authenticate(store, lambda: MOMENT)(_ask(_GOOD.key_id, digest))
