"""Authenticate: whose key is this?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from gen.weir.auth.v1 import AuthenticateRequest, Key
from meshkit.errors import KeyExpired, KeyInvalid, KeyRevoked
from meshkit.tokens import SECRET_SHA256_BYTES, is_key_id
from services.auth.domain.key_use import is_opened_by
from services.auth.ports import Clock, KeyStore

_NOBODY: Final = Key(secret_sha256=bytes(SECRET_SHA256_BYTES))


class Authenticate:
    """Asks the store itself: a router comes here with a key that may have been made a moment ago elsewhere.

    Args:
        tokens: says whose JWT one is (services.auth.jwt); None where no issuer is trusted.
    """

    def __init__(
        self, store: KeyStore, now: Clock, tokens: Callable[[str], Awaitable[Key]] | None = None
    ) -> None:
        self._store = store
        self._now = now
        self._tokens = tokens

    async def __call__(self, request: AuthenticateRequest) -> Key:
        """The key. Raises KeyInvalid, and only to one who has the secret KeyRevoked or KeyExpired.

        For a JWT also Forbidden, where its claims give it no scope, and UpstreamError, while its issuer's keys are not
        at hand.
        """
        if request.jwt and self._tokens is not None:
            return await self._tokens(request.jwt)
        key_id, secret_sha256 = request.key_id, request.secret_sha256
        key = await self._store.find(key_id) if is_key_id(key_id) else None
        # The same work whether there is such a key or not.
        opened = is_opened_by(_NOBODY if key is None else key, secret_sha256, self._now())
        if not opened or key is None:
            raise KeyInvalid("the key is not known here, or its secret is wrong")
        if key.revoked_at is not None:
            raise KeyRevoked(f"the key {key_id} was revoked")
        if key.expires_at is not None and key.expires_at <= self._now():
            raise KeyExpired(f"the key {key_id} expired at {key.expires_at.isoformat(timespec='seconds')}")
        return key
