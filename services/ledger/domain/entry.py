"""Which entries are sound, and an entry with its charge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from gen.weir.ledger.v1 import Entry, Outcome
from gen.weir.type.v1 import Principal, Target, Usage
from pricing.cost import MAX_TOKENS
from pricing.price_list import Charge

MAX_ENTRIES = 1_000
"""Entries of a batch, by the contract."""
ENTRY_ID_BYTES = 16


class Fault(NamedTuple):
    """What is wrong with an entry."""

    field: str
    """By the contract's names, from the entry down: `usage.output_tokens`."""
    text: str


@dataclass(frozen=True, slots=True)
class Span:
    """How far from the present an entry may have begun. Each day outside would make a partition of its own."""

    past: timedelta
    future: timedelta


@dataclass(frozen=True, slots=True)
class SoundEntry:
    """An entry that the ledger can keep, with the parts that the contract lets be absent."""

    entry: Entry
    begun_at: datetime
    principal: Principal
    target: Target
    usage: Usage

    @property
    def day(self) -> date:
        """The day it belongs to (UTC), as partitions count days."""
        return self.begun_at.astimezone(UTC).date()


@dataclass(frozen=True, slots=True)
class ChargedEntry:
    """A sound entry and its charge; None where its target has no price: the cost is unknown, not zero."""

    sound: SoundEntry
    charge: Charge | None


def sound(entry: Entry, now: datetime, span: Span) -> SoundEntry | Fault:
    """The entry, fit for the ledger; or the first thing that makes it unfit."""
    begun_at = entry.begun_at
    if begun_at is None or begun_at.tzinfo is None:
        return Fault("begun_at", "is absent")
    fit = SoundEntry(
        entry=entry,
        begun_at=begun_at,
        # Not `or`: the truth of a betterproto2 message takes 20 us to find.
        principal=Principal() if entry.principal is None else entry.principal,
        target=Target() if entry.target is None else entry.target,
        usage=Usage() if entry.usage is None else entry.usage,
    )
    return next(_faults(fit, now, span), None) or fit


def _faults(fit: SoundEntry, now: datetime, span: Span) -> Iterator[Fault]:
    entry, begun_at = fit.entry, fit.begun_at
    if len(entry.entry_id) != ENTRY_ID_BYTES:
        yield Fault("entry_id", f"has {len(entry.entry_id)} bytes, not {ENTRY_ID_BYTES}")
    if not now - span.past <= begun_at <= now + span.future:
        yield Fault("begun_at", f"is not within {span.past} before and {span.future} after the present")
    if entry.outcome <= Outcome.UNSPECIFIED:
        yield Fault("outcome", "is not specified")
    yield from _usage_faults(fit.usage)
    for name, label in _labels(fit):
        if "\0" in label:
            yield Fault(name, "holds a NUL character, which PostgreSQL cannot store")


def _usage_faults(usage: Usage) -> Iterator[Fault]:
    counts = {
        "usage.input_tokens": usage.input_tokens,
        "usage.output_tokens": usage.output_tokens,
        "usage.cached_input_tokens": usage.cached_input_tokens or 0,
    }
    for name, tokens in counts.items():
        if tokens > MAX_TOKENS:
            yield Fault(name, f"is over {MAX_TOKENS}, more than one attempt can use")


def _labels(fit: SoundEntry) -> Iterator[tuple[str, str]]:
    entry, principal, target = fit.entry, fit.principal, fit.target
    yield "request_id", entry.request_id
    yield "principal.key_id", principal.key_id
    yield "principal.org", principal.org
    yield "principal.team", principal.team
    yield "model_asked", entry.model_asked
    yield "target.name", target.name
    yield "target.provider", target.provider
    yield "target.model", target.model
    yield "route_reason", entry.route_reason
    yield "error_reason", entry.error_reason
