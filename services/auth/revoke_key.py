"""RevokeKey: ends a key, for ever."""

from __future__ import annotations

from gen.weir.auth.v1 import RevokeKeyRequest, RevokeKeyResponse
from services.auth import reach
from services.auth.domain.admin import Admin
from services.auth.domain.audit import KEYS_REVOKE, done
from services.auth.ports import AuditLog, Clock, KeyStore


class RevokeKey:
    """Twice is as good as once: the key keeps the time of the first."""

    def __init__(self, store: KeyStore, audit: AuditLog, now: Clock) -> None:
        self._store = store
        self._audit = audit
        self._now = now

    async def __call__(self, request: RevokeKeyRequest, admin: Admin) -> RevokeKeyResponse:
        """The key that ended. Raises InvalidRequest, Forbidden (services.auth.reach)."""
        await reach.key_in_reach(self._store, request.key_id, admin)
        now = self._now()
        event = done(admin, KEYS_REVOKE, request.key_id, now)
        key = await self._store.revoke(request.key_id, now, event)
        if key is None:
            key = await reach.key_in_reach(self._store, request.key_id, admin)
            await self._audit.add([done(admin, KEYS_REVOKE, key.id, now, "it was revoked before")])
        return RevokeKeyResponse(key=reach.shown(key))
