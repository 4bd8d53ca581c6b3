"""Usage: sums entries of a span of time."""

from __future__ import annotations

from gen.weir.ledger.v1 import UsageRequest, UsageResponse
from meshkit.errors import InvalidRequest
from services.ledger.ports import Clock, EntryStore


class Usage:
    """What every principal used and what it cost."""

    def __init__(self, store: EntryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def __call__(self, request: UsageRequest) -> UsageResponse:
        """The sums, the costliest first. Raises InvalidRequest, LedgerUnavailable."""
        until = request.until or self._clock()
        if request.since is not None and request.since > until:
            raise InvalidRequest("since is later than until", param="since")
        return UsageResponse(rows=await self._store.usage(request.since, until))
