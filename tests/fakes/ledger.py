"""What the ledger's tests put in place of PostgreSQL, and entries to record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from gen.weir.ledger.v1 import Entry, Outcome, UsageRow
from gen.weir.type.v1 import Locality, Principal, Target, Usage
from meshkit.errors import LedgerUnavailable
from meshkit.ids import uuid7
from pricing.price_list import Charge
from services.ledger.domain.entry import ChargedEntry, SoundEntry
from services.ledger.domain.reader import Team
from services.ledger.ports import EntryRefusedError

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
"""The present of tests that do not care."""


def an_entry(**changes: Any) -> Entry:
    """A sound entry, begun a minute before NOON unless told otherwise."""
    fields: dict[str, Any] = {
        "entry_id": uuid7().bytes,
        "begun_at": NOON - timedelta(minutes=1),
        "request_id": "req_1",
        "attempt": 1,
        "principal": Principal(key_id="key_1", org="acme", team="blue"),
        "model_asked": "auto",
        "target": Target(name="cloud-mini", locality=Locality.CLOUD, provider="openai", model="gpt-4o-mini"),
        "route_reason": "by order",
        "outcome": Outcome.OK,
        "usage": Usage(input_tokens=1_000, output_tokens=100),
        "latency": timedelta(milliseconds=1_500),
        "first_token": timedelta(milliseconds=200),
    }
    return Entry(**{**fields, **changes})


def charged(entry: Entry, nano_usd: int | None = 210_000) -> ChargedEntry:
    """The entry as a store is given it, unchecked; `nano_usd` None means unpriced."""
    fit = SoundEntry(
        entry=entry,
        begun_at=entry.begun_at or NOON,
        principal=Principal() if entry.principal is None else entry.principal,
        target=Target() if entry.target is None else entry.target,
        usage=Usage() if entry.usage is None else entry.usage,
    )
    return ChargedEntry(fit, None if nano_usd is None else Charge(nano_usd, "test-price"))


class FakeEntryStore:
    """Entries in memory (EntryStore, DayStore). While `down` is set, every call raises LedgerUnavailable."""

    def __init__(self) -> None:
        self.entries: dict[tuple[datetime, bytes], ChargedEntry] = {}
        self.days: set[date] = set()
        self.down = False

    async def write(self, entries: Sequence[ChargedEntry]) -> int:
        """See the port. A label with a NUL character is refused, as PostgreSQL does."""
        self._check_up()
        before = len(self.entries)
        for index, entry in enumerate(entries):
            if any("\0" in label for label in _group(entry)[:5]):
                raise EntryRefusedError(index, "a label holds a NUL character")
        for entry in entries:
            self.entries.setdefault((entry.sound.begun_at, entry.sound.entry.entry_id), entry)
        return len(self.entries) - before

    async def usage(
        self, since: datetime | None, until: datetime, team: Team | None = None
    ) -> list[UsageRow]:
        """See the port."""
        self._check_up()
        groups: dict[tuple[str, str, str, str, str, int], list[ChargedEntry]] = defaultdict(list)
        for (begun_at, _), entry in self.entries.items():
            whose = Team(entry.sound.principal.org, entry.sound.principal.team)
            if (since is None or since <= begun_at) and begun_at < until and team in {None, whose}:
                groups[_group(entry)].append(entry)
        rows = [_row(groups[key]) for key in sorted(groups)]
        return sorted(rows, key=lambda row: -row.cost_nano_usd)

    async def prepare(self, first: date, last: date) -> None:
        """See the port."""
        self._check_up()
        self.days |= {first + timedelta(days=days) for days in range((last - first).days + 1)}

    def _check_up(self) -> None:
        if self.down:
            raise LedgerUnavailable("the store is down")


def _group(entry: ChargedEntry) -> tuple[str, str, str, str, str, int]:
    who, fit = entry.sound.principal, entry.sound
    return who.key_id, who.org, who.team, fit.entry.model_asked, fit.target.name, int(fit.entry.outcome)


def _row(group: list[ChargedEntry]) -> UsageRow:
    first = group[0].sound
    usages = [entry.sound.usage for entry in group]
    cached = [usage.cached_input_tokens for usage in usages if usage.cached_input_tokens is not None]
    return UsageRow(
        principal=first.principal,
        model_asked=first.entry.model_asked,
        target=first.target.name,
        outcome=first.entry.outcome,
        attempts=len(group),
        usage=Usage(
            input_tokens=sum(usage.input_tokens for usage in usages),
            output_tokens=sum(usage.output_tokens for usage in usages),
            cached_input_tokens=sum(cached) if cached else None,
            estimated=any(usage.estimated for usage in usages),
        ),
        cost_nano_usd=sum(entry.charge.nano_usd for entry in group if entry.charge is not None),
        unpriced_attempts=sum(entry.charge is None for entry in group),
    )
