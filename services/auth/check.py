"""Check: may this request pass to another service behind the gateway?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from gen.weir.auth.v1 import AuditEvent, Key, Scope
from meshkit.errors import (
    Forbidden,
    KeyExpired,
    KeyInvalid,
    KeyMissing,
    KeyRevoked,
    RateLimited,
    WeirError,
)
from meshkit.scopes import USUAL, need, scopes_of
from services.auth.check_settings import CheckSettings
from services.auth.domain.audit import clean
from services.auth.domain.key_use import check_network
from services.auth.ports import Clock

ACTION: Final = "services.check"
"""The name of a refused request in the audit."""
_ADMINISTRATIVE: Final = frozenset({Scope.KEYS_WRITE, Scope.ADMIN})
_REFUSALS: Final = (Forbidden, KeyExpired, KeyInvalid, KeyMissing, KeyRevoked, RateLimited)


@dataclass(frozen=True, slots=True)
class Question:
    """What is known of a request that would pass."""

    authorization: str | None
    """The header's value; None where there is none."""
    address: str
    """The client's, without a port; empty where it is not known."""
    scope: Scope | None = None
    """What the service asks for; None: any good key."""
    service: str = ""
    """The service's name in the edge's settings."""


class Check:
    """Needs no look-up for a key that is in the key set.

    Args:
        recognise: the key of an Authorization header, where the store was read no longer ago than so many seconds.
        refused: takes the row of a refusal, at once.
    """

    def __init__(
        self,
        recognise: Callable[[str | None, float], Awaitable[Key]],
        refused: Callable[[AuditEvent], None],
        now: Clock,
        settings: CheckSettings,
    ) -> None:
        self._recognise = recognise
        self._refused = refused
        self._now = now
        self._settings = settings

    async def __call__(self, question: Question) -> Key:
        """The key that may pass.

        Raises KeyMissing, KeyInvalid, KeyExpired, KeyRevoked, Forbidden, RateLimited, UpstreamError.
        """
        administrative = question.scope in _ADMINISTRATIVE
        max_stale_s = self._settings.admin_max_stale_s if administrative else self._settings.max_stale_s
        key = None
        try:
            key = await self._recognise(question.authorization, max_stale_s)
            check_network(key.networks, question.address)
            if question.scope is not None:
                need(scopes_of(key.scopes), *_that_will_do(question.scope))
        except _REFUSALS as error:
            self._refused(self._row(question, key, error))
            raise
        return key

    def _row(self, question: Question, key: Key | None, error: WeirError) -> AuditEvent:
        return clean(
            AuditEvent(
                at=self._now(), who=None if key is None else key.principal, action=ACTION,
                subject=question.service, address=question.address, refused=error.reason,
                detail=error.message, count=1,
            )
        )  # fmt: skip


def _that_will_do(scope: Scope) -> tuple[Scope, ...]:
    """An administrator may do everything but ask models."""
    return (scope,) if scope in USUAL or scope is Scope.ADMIN else (scope, Scope.ADMIN)
