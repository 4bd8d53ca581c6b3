"""What the ledger needs of the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Protocol

from gen.weir.auth.v1 import AuthenticateRequest, Key
from gen.weir.ledger.v1 import UsageRow
from gen.weir.type.v1 import Target, Usage
from pricing.price_list import Charge
from services.ledger.domain.entry import ChargedEntry
from services.ledger.domain.reader import Team

Clock = Callable[[], datetime]
"""The present, with its time zone."""


class EntryRefusedError(Exception):
    """The store can never hold one entry of a batch; sending it again would fail again.

    Args:
        index: of the entry in the batch.
        why: what the store says of it.
    """

    def __init__(self, index: int, why: str) -> None:
        super().__init__(f"entry {index}: {why}")
        self.index = index
        self.why = why


class EntryStore(Protocol):
    """Keeps entries for ever. Every method raises LedgerUnavailable if the store cannot be used at present."""

    async def write(self, entries: Sequence[ChargedEntry]) -> int:
        """Makes the entries durable, all or none, and returns how many were new.

        An entry whose (begun_at, entry_id) is known already is left as it is. Raises EntryRefusedError if one of
        them cannot be stored; then the others may or may not have been.
        """

    async def usage(
        self, since: datetime | None, until: datetime, team: Team | None = None
    ) -> list[UsageRow]:
        """Sums of the entries begun in [since, until), the costliest first, then by principal and names.

        With `team`, of its entries alone.
        """


class KeyDirectory(Protocol):
    """Knows every key."""

    async def ask(self, request: AuthenticateRequest) -> Key:
        """The key with this id and this digest of its secret, or the one that stands for this JWT.

        Raises KeyInvalid, KeyExpired, KeyRevoked, and UpstreamError where nobody can be asked at present.
        """


class DayStore(Protocol):
    """Keeps entries by days."""

    async def prepare(self, first: date, last: date) -> None:
        """Makes room for entries of every day from `first` to `last` (UTC). Raises LedgerUnavailable."""


class PriceBook(Protocol):
    """Knows what attempts cost (pricing.price_list.PriceList)."""

    def charge(self, target: Target, usage: Usage, begun_at: datetime) -> Charge | None:
        """What an attempt costs by the price of the day it began; None if its target has no price."""
