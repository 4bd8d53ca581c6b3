"""ReportRefusals: a router's sample of the requests that it refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from gen.weir.auth.v1 import AuditEvent, ReportRefusalsRequest, ReportRefusalsResponse
from gen.weir.error.v1 import Reason
from meshkit.errors import InvalidRequest
from services.auth.domain.audit import clean
from services.auth.ports import AuditLog, Clock

MAX_EVENTS: Final = 1_000
MAX_AGE: Final = timedelta(days=1)
_ANY: Final = "*"
"""The action of a row that stands for refusals of several."""


class ReportRefusals:
    """Keeps the rows that routers report, as far as they are refusals."""

    def __init__(self, audit: AuditLog, now: Clock) -> None:
        self._audit = audit
        self._now = now

    async def __call__(self, request: ReportRefusalsRequest) -> ReportRefusalsResponse:
        """Takes all or none. Raises InvalidRequest for too many, and for a row that tells of something done."""
        if len(request.events) > MAX_EVENTS:
            raise InvalidRequest(
                f"events has {len(request.events)} rows; {MAX_EVENTS} are allowed", param="events"
            )
        if any(event.refused == Reason.UNSPECIFIED for event in request.events):
            # Routers administer nothing: what was done Auth itself knows.
            raise InvalidRequest("events: a row tells of no refusal", param="events")
        now = self._now()
        await self._audit.add([_kept(event, now) for event in request.events])
        return ReportRefusalsResponse()


def _kept(event: AuditEvent, now: datetime) -> AuditEvent:
    """The row with a time that can be: a router's clock may be wrong, and a row of the far future would never end."""
    at = now if event.at is None else min(max(event.at, now - MAX_AGE), now)
    return clean(replace(event, id=0, at=at, action=event.action or _ANY))
