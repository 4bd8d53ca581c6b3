"""Authenticate: whose key is this?"""

from __future__ import annotations

from gen.weir.auth.v1 import AuthenticateRequest, Key
from meshkit.errors import KeyExpired, KeyInvalid, KeyRevoked
from meshkit.tokens import SECRET_SHA256_BYTES, is_key_id, same_digest
from services.auth.ports import Clock, KeyStore

_NO_DIGEST = bytes(SECRET_SHA256_BYTES)


class Authenticate:
    """Asks the store itself: a router comes here with a key that may have been made a moment ago elsewhere."""

    def __init__(self, store: KeyStore, now: Clock) -> None:
        self._store = store
        self._now = now

    async def __call__(self, request: AuthenticateRequest) -> Key:
        """The key. Raises KeyInvalid, and only to one who has the secret KeyRevoked or KeyExpired."""
        key_id, secret_sha256 = request.key_id, request.secret_sha256
        key = await self._store.find(key_id) if is_key_id(key_id) else None
        stored = _NO_DIGEST if key is None else key.secret_sha256
        if not same_digest(stored, secret_sha256) or key is None:
            raise KeyInvalid("the key is not known here, or its secret is wrong")
        if key.revoked_at is not None:
            raise KeyRevoked(f"the key {key_id} was revoked")
        if key.expires_at is not None and key.expires_at <= self._now():
            raise KeyExpired(f"the key {key_id} expired at {key.expires_at.isoformat(timespec='seconds')}")
        return key
