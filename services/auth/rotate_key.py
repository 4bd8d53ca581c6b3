"""RotateKey: gives a key a new secret and tells its token once."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from gen.weir.auth.v1 import RotateKeyRequest, RotateKeyResponse
from meshkit.errors import InvalidRequest
from meshkit.scopes import scopes_of
from meshkit.tokens import mint
from services.auth import reach
from services.auth.domain.admin import Admin
from services.auth.domain.audit import KEYS_ROTATE, done
from services.auth.ports import Clock, KeyStore, NewSecret, RandomBytes

MAX_OVERLAP: Final = timedelta(days=30)


class RotateKey:
    """The id stays, and with it everything that the key may do. The former secret stays good for a while."""

    def __init__(self, store: KeyStore, now: Clock, random_bytes: RandomBytes) -> None:
        self._store = store
        self._now = now
        self._random_bytes = random_bytes

    async def __call__(self, request: RotateKeyRequest, admin: Admin) -> RotateKeyResponse:
        """The key and its new token.

        Raises InvalidRequest for an overlap out of bounds and for a key at its end; what services.auth.reach says.
        """
        key = await reach.key_in_reach(self._store, request.key_id, admin)
        # Whoever rotates a key holds it from then on.
        reach.check_gift(admin, scopes_of(key.scopes))
        overlap = _overlap(request.overlap)
        token, now = mint(self._random_bytes, key.id), self._now()
        until = now + overlap if overlap else None
        event = done(admin, KEYS_ROTATE, key.id, now, f"the former secret is good for {overlap}")
        rotated = await self._store.rotate(key.id, NewSecret(token.secret_sha256, now, until), event)
        if rotated is None:
            raise InvalidRequest("a key that was revoked or has expired gets no new secret", param="key_id")
        return RotateKeyResponse(key=rotated, token=token.text)


def _overlap(asked: timedelta | None) -> timedelta:
    overlap = timedelta() if asked is None else asked
    if not timedelta() <= overlap <= MAX_OVERLAP:
        raise InvalidRequest(f"overlap must be 0 to {MAX_OVERLAP.days} days", param="overlap")
    return overlap
