"""Refused administrative calls as rows of the audit, not more than so many a minute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gen.weir.auth.v1 import AuditEvent
from gen.weir.error.v1 import Reason
from meshkit.errors import UpstreamError
from meshkit.telemetry import Logger
from services.auth.ports import AuditLog

_Kind = tuple[str, Reason]
_MINUTE_S = 60.0


class RecordRefusal:
    """A flood of refused calls fills no disk: what is over the rate is counted, and the next row of its kind says so.

    What is held is bounded by the numbers of actions and reasons.

    Args:
        per_minute: rows at most, as many at once after a pause.
        monotonic: seconds on a clock that never goes back.
    """

    def __init__(self, audit: AuditLog, per_minute: int, monotonic: Callable[[], float], log: Logger) -> None:
        self._audit = audit
        self._per_minute = float(per_minute)
        self._monotonic = monotonic
        self._log = log
        self._left = self._per_minute
        self._counted_at_s = monotonic()
        self._uncounted: dict[_Kind, int] = {}

    async def __call__(self, event: AuditEvent) -> None:
        """Keeps the row or counts it. A store that is away is logged: the call is refused in any case."""
        kind = (event.action, event.refused)
        before = self._uncounted.pop(kind, 0)
        if not self._take_one():
            self._uncounted[kind] = before + 1
            return
        try:
            await self._audit.add([replace(event, count=1 + before)])
        except UpstreamError as error:
            self._uncounted[kind] = self._uncounted.get(kind, 0) + before + 1
            self._log.warning("a refusal is not in the audit", action=event.action, reason=error.message)

    def _take_one(self) -> bool:
        now_s = self._monotonic()
        back = (now_s - self._counted_at_s) * self._per_minute / _MINUTE_S
        self._left, self._counted_at_s = min(self._per_minute, self._left + back), now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True
