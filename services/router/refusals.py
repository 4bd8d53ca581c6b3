"""What happens to those who are refused: a flood of them is slowed down, and a sample reaches the audit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from gen.weir.auth.v1 import AuditEvent
from gen.weir.error.v1 import Reason
from gen.weir.type.v1 import Principal
from meshkit.errors import (
    Forbidden,
    InvalidRequest,
    KeyExpired,
    KeyInvalid,
    KeyMissing,
    KeyRevoked,
    RateLimited,
    WeirError,
)
from meshkit.telemetry import Logger
from services.router.domain.token_bucket import TokenBucket
from services.router.identity_settings import IdentitySettings
from services.router.ports import Clock

REFUSED = (KeyMissing, KeyInvalid, KeyExpired, KeyRevoked, Forbidden, RateLimited)
_FLOOD_BURST_S = 2.0


class _Kind(NamedTuple):
    """What makes two refusals the same row."""

    action: str
    reason: Reason
    address: str
    key_id: str
    org: str
    team: str
    subject: str


class Refusals:
    """Slows a flood of bad keys down, and keeps a sample of all refusals for the audit.

    Args:
        report: sends rows to Auth. Raises WeirError.
    """

    def __init__(
        self,
        report: Callable[[Sequence[AuditEvent]], Awaitable[None]],
        clock: Clock,
        settings: IdentitySettings,
        log: Logger,
    ) -> None:
        self._report = report
        self._clock = clock
        self._settings = settings
        self._log = log
        self._calm = TokenBucket(
            settings.calm_refusals_per_s, max(1.0, settings.calm_refusals_per_s * _FLOOD_BURST_S)
        )
        self._held = 0
        self._last_turn_s = float("-inf")
        self._seen: dict[_Kind, tuple[datetime, int]] = {}
        self._report_fails = False

    async def refused(self, error: WeirError, action: str, address: str, who: Principal | None) -> None:
        """Notes one of REFUSED, and returns when it may be answered.

        Args:
            error: what the caller will be told.
            action: the RPC's path.
            address: the client's, as far as it is known.
            who: the caller, where the key was recognised.
        """
        self._note(error, action, address, who)
        # Whose key it was is known of one that ended too, and whoever has it may well be somebody else by now.
        bad = isinstance(error, (KeyExpired, KeyRevoked)) or (
            who is None and not isinstance(error, Forbidden)
        )
        if not bad or self._calm.take(self._clock.monotonic()):
            return
        if self._held >= self._settings.held_refusals:
            return
        self._held += 1
        try:
            await self._clock.sleep(self._turn_s() - self._clock.monotonic())
        finally:
            self._held -= 1

    def _turn_s(self) -> float:
        """When the next one held back is answered: one after the other, so that none of them comes in a crowd."""
        pause_s = 1.0 / self._settings.flood_answers_per_s
        self._last_turn_s = max(self._clock.monotonic(), self._last_turn_s) + pause_s
        return self._last_turn_s

    async def watch(self) -> None:
        """Reports until cancelled."""
        while True:
            await self._clock.sleep(self._settings.report_s)
            await self.report()

    async def report(self) -> None:
        """Sends what was seen since the last time; what cannot be sent is kept for the next.

        Not what Auth says that it will never take: the same rows again would keep out all that come after them.
        """
        events = [_event(kind, at, count) for kind, (at, count) in self._seen.items()]
        if not events:
            return
        seen, self._seen = self._seen, {}
        try:
            await self._report(events)
        except InvalidRequest as error:
            self._log.warning(
                "auth does not take refusals; they are lost", error=str(error), rows=len(events)
            )
        except WeirError as error:
            if not self._report_fails:
                self._log.warning("refusals cannot be reported; they are kept", error=str(error))
            self._report_fails = True
            self._keep(seen)
        except asyncio.CancelledError:
            self._keep(seen)
            raise
        else:
            self._report_fails = False

    def _keep(self, seen: Mapping[_Kind, tuple[datetime, int]]) -> None:
        for kind, (at, count) in seen.items():
            self._count(kind, at, count)

    def _note(self, error: WeirError, action: str, address: str, who: Principal | None) -> None:
        known = Principal() if who is None else who
        subject = error.details.get("key_id", "")
        kind = _Kind(action, error.reason, address, known.key_id, known.org, known.team, subject)
        self._count(kind, self._clock.now(), 1)

    def _count(self, kind: _Kind, at: datetime, count: int) -> None:
        if kind not in self._seen and len(self._seen) >= self._settings.reported_refusals:
            kind = _Kind("", kind.reason, "", "", "", "", "")  # one row for all the others
        first, before = self._seen.get(kind, (at, 0))
        self._seen[kind] = (first, before + count)


def _event(kind: _Kind, at: datetime, count: int) -> AuditEvent:
    return AuditEvent(
        at=at,
        who=Principal(key_id=kind.key_id, org=kind.org, team=kind.team),
        action=kind.action,
        subject=kind.subject,
        address=kind.address,
        peer="router",
        refused=kind.reason,
        count=count,
    )
