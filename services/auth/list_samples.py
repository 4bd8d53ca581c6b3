"""ListSamples: what was kept of sampled requests, for people to read."""

from __future__ import annotations

from datetime import datetime

from gen.weir.auth.v1 import AuditEvent, ListSamplesRequest, ListSamplesResponse, Scope
from meshkit.errors import InvalidRequest
from meshkit.scopes import need
from meshkit.tokens import is_key_id
from services.auth.domain.admin import Admin
from services.auth.domain.audit import SAMPLES_LIST, done
from services.auth.ports import AuditLog, Clock, SampleStore

USUAL_PAGE = 20
MAX_PAGE = 100


class ListSamples:
    """Newest first. Who looks leaves a row of the audit before anything is shown."""

    def __init__(self, store: SampleStore, audit: AuditLog, now: Clock) -> None:
        self._store = store
        self._audit = audit
        self._now = now

    async def __call__(self, request: ListSamplesRequest, admin: Admin) -> ListSamplesResponse:
        """Raises Forbidden without the scope admin, InvalidRequest, and UpstreamError while the store is away."""
        need(admin.scopes, Scope.ADMIN)
        if not 0 <= request.page_size <= MAX_PAGE:
            raise InvalidRequest(f"page_size must be 1 to {MAX_PAGE}", param="page_size")
        samples = await self._store.newest(request.key_id, request.page_size or USUAL_PAGE)
        await self._audit.add([_row(request, admin, len(samples), self._now())])
        return ListSamplesResponse(samples=samples)


def _row(request: ListSamplesRequest, admin: Admin, shown: int, at: datetime) -> AuditEvent:
    # A caller may have written a whole token where an id belongs.
    subject = request.key_id if is_key_id(request.key_id) else ""
    return done(
        admin, SAMPLES_LIST, subject, at, f"{shown} shown, of {'one key' if request.key_id else 'all keys'}"
    )
