"""Usage: sums entries of a span of time."""

from __future__ import annotations

from gen.weir.auth.v1 import Scope
from gen.weir.ledger.v1 import UsageRequest, UsageResponse
from meshkit.errors import InvalidRequest
from meshkit.scopes import need
from services.ledger.domain.reader import Reader
from services.ledger.ports import Clock, EntryStore


class Usage:
    """What every principal used and what it cost, as far as the reader may see it."""

    def __init__(self, store: EntryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def __call__(self, request: UsageRequest, reader: Reader) -> UsageResponse:
        """The sums, the costliest first: of the reader's own team, or of all for an admin.

        Raises Forbidden, InvalidRequest, LedgerUnavailable.
        """
        need(reader.scopes, Scope.USAGE_READ, Scope.ADMIN)
        until = request.until or self._clock()
        if request.since is not None and request.since > until:
            raise InvalidRequest("since is later than until", param="since")
        return UsageResponse(rows=await self._store.usage(request.since, until, reader.sees))
