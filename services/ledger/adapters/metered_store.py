"""Counts what passes to a store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter

from gen.weir.ledger.v1 import UsageRow
from services.ledger.domain.entry import ChargedEntry
from services.ledger.domain.reader import Team
from services.ledger.ports import EntryRefusedError, EntryStore


class MeteredEntryStore:
    """An EntryStore that counts the entries written, sent again, unpriced and refused."""

    def __init__(self, store: EntryStore, registry: CollectorRegistry) -> None:
        self._store = store
        entries = Counter(
            "weir_ledger_entries", "Entries by what became of them.", ("result",), registry=registry
        )
        self._written = entries.labels("written")
        self._known = entries.labels("known")
        self._refused = entries.labels("refused")
        self._unpriced = Counter(
            "weir_ledger_unpriced_entries",
            "Entries received whose target has no price.",
            registry=registry,
        )

    async def write(self, entries: Sequence[ChargedEntry]) -> int:
        """See the port."""
        try:
            new = await self._store.write(entries)
        except EntryRefusedError:
            self._refused.inc()
            raise
        self._written.inc(new)
        self._known.inc(len(entries) - new)
        self._unpriced.inc(sum(entry.charge is None for entry in entries))
        return new

    async def usage(
        self, since: datetime | None, until: datetime, team: Team | None = None
    ) -> list[UsageRow]:
        """See the port."""
        return await self._store.usage(since, until, team)
