"""ListAudit: who did what, newest first."""

from __future__ import annotations

import re
from typing import Final

from gen.weir.auth.v1 import ListAuditRequest, ListAuditResponse, Scope
from meshkit.scopes import need
from services.auth import paging
from services.auth.domain.admin import Admin
from services.auth.domain.audit import AUDIT_LIST, done
from services.auth.domain.pages import AuditQuery
from services.auth.ports import AuditLog, Clock

_PLACE: Final = re.compile(r"audit:([0-9]{1,18})")


class ListAudit:
    """Shows rows of the audit; who looks leaves one too."""

    def __init__(self, audit: AuditLog, now: Clock) -> None:
        self._audit = audit
        self._now = now

    async def __call__(self, request: ListAuditRequest, admin: Admin) -> ListAuditResponse:
        """A page. Raises Forbidden without the scope admin; InvalidRequest for a page that is none."""
        need(admin.scopes, Scope.ADMIN)
        most = paging.size(request.page_size)
        below = int(paging.place(request.page_token, _PLACE)[1]) if request.page_token else None
        query = AuditQuery(
            most=most + 1, since=request.since, key_id=request.key_id, refused=request.refused, below=below
        )
        events = await self._audit.page(query)
        await self._audit.add([done(admin, AUDIT_LIST, "", self._now())])
        shown = list(events[:most])
        more = len(events) > most
        return ListAuditResponse(
            events=shown, next_page_token=paging.token(f"audit:{shown[-1].id}") if more else ""
        )
