"""SetKeySampling: switches on or off that some of a key's requests are kept."""

from __future__ import annotations

from gen.weir.auth.v1 import Scope, SetKeySamplingRequest, SetKeySamplingResponse
from meshkit.errors import InvalidRequest
from meshkit.scopes import need
from services.auth import reach
from services.auth.domain.admin import Admin
from services.auth.domain.audit import KEYS_SAMPLE, done
from services.auth.ports import Clock, KeyStore


class SetKeySampling:
    """What is kept has prompts and answers in it: for administrators of everything alone."""

    def __init__(self, store: KeyStore, now: Clock) -> None:
        self._store = store
        self._now = now

    async def __call__(self, request: SetKeySamplingRequest, admin: Admin) -> SetKeySamplingResponse:
        """The key after the change. Raises Forbidden without the scope admin; InvalidRequest."""
        need(admin.scopes, Scope.ADMIN)
        if not 0 <= request.share <= 1:  # NaN is neither
            raise InvalidRequest("share must be 0 to 1", param="share")
        await reach.key_in_sight(self._store, request.key_id, admin)
        event = done(admin, KEYS_SAMPLE, request.key_id, self._now(), f"share {request.share:g}")
        key = await self._store.sample(request.key_id, request.share, event)
        if key is None:
            raise InvalidRequest(f"there is no key {request.key_id}", param="key_id")
        return SetKeySamplingResponse(key=reach.shown(key))
