"""GetKey: shows one key."""

from __future__ import annotations

from gen.weir.auth.v1 import GetKeyRequest, GetKeyResponse
from services.auth import reach
from services.auth.domain.admin import Admin
from services.auth.domain.audit import KEYS_SHOW, done
from services.auth.ports import AuditLog, Clock, KeyStore


class GetKey:
    """Shows it without its digests."""

    def __init__(self, store: KeyStore, audit: AuditLog, now: Clock) -> None:
        self._store = store
        self._audit = audit
        self._now = now

    async def __call__(self, request: GetKeyRequest, admin: Admin) -> GetKeyResponse:
        """The key. Raises InvalidRequest, Forbidden (services.auth.reach)."""
        key = await reach.key_in_sight(self._store, request.key_id, admin)
        await self._audit.add([done(admin, KEYS_SHOW, key.id, self._now())])
        return GetKeyResponse(key=reach.shown(key))
