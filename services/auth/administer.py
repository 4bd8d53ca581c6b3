"""Around every administrative RPC: who calls, and a row of the audit where it is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from gen.rpc import RpcContext
from gen.weir.auth.v1 import AuditEvent
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
from meshkit.tokens import is_key_id
from services.auth.authorize import Authorize, stranger
from services.auth.domain.admin import Admin
from services.auth.domain.audit import refused
from services.auth.ports import Clock

_T = TypeVar("_T")
_REFUSALS = (Forbidden, InvalidRequest, KeyExpired, KeyInvalid, KeyMissing, KeyRevoked, RateLimited)


class Administer:
    """Calls a use case for whom the call's key names. The rows of what is done are the use cases' own.

    Args:
        record_refusal: keeps the row of a refusal. Raises nothing.
    """

    def __init__(
        self, authorize: Authorize, record_refusal: Callable[[AuditEvent], Awaitable[None]], now: Clock
    ) -> None:
        self._authorize = authorize
        self._record_refusal = record_refusal
        self._now = now

    async def __call__(
        self, action: str, key_id: str, call: Callable[[Admin], Awaitable[_T]], context: RpcContext
    ) -> _T:
        """What `call` answers.

        Args:
            action: its name in the audit.
            key_id: of the key acted on, as the caller wrote it; empty where there is none.
            call: the use case with its request.
            context: of the RPC.

        Raises KeyMissing, KeyInvalid, KeyExpired, KeyRevoked, and what `call` raises.
        """
        admin = stranger(context)
        try:
            admin = await self._authorize(context)
            return await call(admin)
        except _REFUSALS as error:
            await self._record_refusal(self._row(admin, action, key_id, error))
            raise

    def _row(self, admin: Admin, action: str, key_id: str, error: WeirError) -> AuditEvent:
        # A caller may have written a whole token where an id belongs.
        subject = key_id if is_key_id(key_id) else ""
        return refused(admin, action, subject, self._now(), error.reason, error.message)
