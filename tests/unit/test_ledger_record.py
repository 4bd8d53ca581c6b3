"""Record: what is taken, what is refused, and how."""

from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from gen.weir.ledger.v1 import Entry, Outcome, RecordRequest
from gen.weir.type.v1 import Locality, Principal, Target, Usage
from meshkit.errors import InvalidRequest, LedgerUnavailable
from pricing.cost import MAX_TOKENS, Rates
from pricing.price_list import Charge, Price, PriceList, Side
from services.ledger.domain.entry import Span
from services.ledger.record import Record
from tests.fakes.ledger import NOON, FakeEntryStore, an_entry

SPAN = Span(past=timedelta(days=10), future=timedelta(minutes=5))
RATES = Rates(input=150_000_000, cached_input=75_000_000, output=600_000_000)
FREE = Rates(input=0, cached_input=0, output=0)
PRICES = PriceList([
    Price("mini", Side.CLOUD, "openai", "gpt-4o-mini", date(2025, 1, 1), "test", RATES),
    Price("flat", Side.LOCAL, "triton", "*", date(2025, 1, 1), "test", FREE),
    Price("sandbox", Side.SANDBOX, "*", "*", date(2025, 1, 1), "test", FREE),
])  # fmt: skip


def _record(store: FakeEntryStore) -> Record:
    return Record(store, PRICES, lambda: NOON, SPAN)


async def _send(store: FakeEntryStore, *batches: RecordRequest) -> list[int]:
    async def requests() -> AsyncIterator[RecordRequest]:
        for batch in batches:
            yield batch

    return [sequence async for sequence in _record(store)(requests())]


async def _charge(**changes: Any) -> Charge | None:
    store = FakeEntryStore()
    await _send(store, RecordRequest(sequence=1, entries=[an_entry(**changes)]))
    (written,) = store.entries.values()
    return written.charge


async def test_each_batch_is_acknowledged_once_it_is_written() -> None:
    """Batches in, their numbers out, an empty one too."""
    store = FakeEntryStore()
    batches = [RecordRequest(sequence=n, entries=[an_entry()] * (n != 2)) for n in (1, 2, 3)]
    assert await _send(store, *batches) == [1, 2, 3]
    assert len(store.entries) == 2


async def test_new_prices_count_from_the_next_entry_on() -> None:
    """What was charged before stays as it was."""
    store = FakeEntryStore()
    record = _record(store)

    async def requests() -> AsyncIterator[RecordRequest]:
        yield RecordRequest(sequence=1, entries=[an_entry()])
        record.take_prices(PriceList([]))
        yield RecordRequest(sequence=2, entries=[an_entry()])

    assert [sequence async for sequence in record(requests())] == [1, 2]
    first, second = store.entries.values()
    assert first.charge is not None
    assert second.charge is None


async def test_nothing_is_acknowledged_that_is_not_written() -> None:
    """While the store is down the stream ends with LedgerUnavailable, without an acknowledgement."""
    store = FakeEntryStore()
    store.down = True
    with pytest.raises(LedgerUnavailable):
        await _send(store, RecordRequest(sequence=1, entries=[an_entry()]))


async def test_a_priced_attempt_is_charged() -> None:
    """By its provider's and model's price, cached tokens apart."""
    usage = Usage(input_tokens=1_000, cached_input_tokens=400, output_tokens=100)
    assert await _charge(usage=usage) == Charge(90_000 + 30_000 + 60_000, "mini")


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CUT, Outcome.CANCELLED, Outcome.ABORTED])
async def test_an_attempt_that_did_not_end_well_costs_what_it_used(outcome: Outcome) -> None:
    """The provider bills for what it produced, however the attempt ended."""
    charge = await _charge(outcome=outcome, usage=Usage(output_tokens=10))
    assert charge == Charge(6_000, "mini")


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=7, output_tokens=3, estimated=True),
        Usage(input_tokens=7, output_tokens=300, reasoning_output_tokens=290),
        Usage(input_tokens=7, cached_input_tokens=9),
    ],
)
async def test_an_attempt_is_charged_what_the_price_list_says(usage: Usage) -> None:
    """The router shows the list's number, so the ledger may have none of its own."""
    entry = an_entry(usage=usage)
    assert entry.target is not None
    assert entry.begun_at is not None
    charge = PRICES.charge(entry.target, usage, entry.begun_at)
    assert charge is not None
    assert await _charge(usage=usage) == charge


async def test_an_attempt_that_used_nothing_costs_nothing() -> None:
    """A refused connection has no usage; its target has a price all the same."""
    assert await _charge(outcome=Outcome.FAILED, usage=None) == Charge(0, "mini")


@pytest.mark.parametrize(
    ("target", "version"),
    [
        (Target(locality=Locality.LOCAL, provider="triton", model="smollm2"), "flat"),
        (Target(locality=Locality.CLOUD, provider="openai", model="gpt-4o-mini", sandbox=True), "sandbox"),
    ],
)
async def test_local_and_sandbox_targets_are_free_by_an_explicit_price(target: Target, version: str) -> None:
    """Zero is a price like any other, and named."""
    assert await _charge(target=target) == Charge(0, version)


@pytest.mark.parametrize(
    "target",
    [
        Target(locality=Locality.CLOUD, provider="openai", model="gpt-9"),
        Target(locality=Locality.CLOUD, provider="triton", model="smollm2"),
        Target(provider="triton", model="smollm2"),
        Target(locality=Locality.LOCAL, provider="openai", model="gpt-4o-mini"),
        None,
    ],
)
async def test_a_target_without_a_price_is_unpriced_and_never_free(target: Target | None) -> None:
    """Unknown models, sides that do not fit, and no target at all."""
    assert await _charge(target=target) is None


async def test_the_price_of_the_day_it_began_holds() -> None:
    """Not the price of the day on which the entry arrives."""
    day_before = Price("old", Side.CLOUD, "p", "m", date(2026, 1, 1), "test", FREE)
    today = Price("new", Side.CLOUD, "p", "m", NOON.date(), "test", RATES)
    store = FakeEntryStore()
    record = Record(store, PriceList([day_before, today]), lambda: NOON, SPAN)
    target = Target(locality=Locality.CLOUD, provider="p", model="m")
    midnight = NOON.replace(hour=0, minute=0, second=0, microsecond=0)
    before = an_entry(begun_at=midnight - timedelta(microseconds=1), target=target)

    async def requests() -> AsyncIterator[RecordRequest]:
        yield RecordRequest(sequence=1, entries=[before, an_entry(begun_at=midnight, target=target)])

    assert [sequence async for sequence in record(requests())] == [1]
    versions = [entry.charge.price_version for entry in store.entries.values() if entry.charge]
    assert versions == ["old", "new"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"entry_id": b""}, "entry_id"),
        ({"entry_id": b"x" * 15}, "entry_id"),
        ({"entry_id": b"x" * 5_000}, "entry_id"),
        ({"begun_at": None}, "begun_at"),
        ({"begun_at": datetime(2026, 3, 1, 11, 59)}, "begun_at"),  # noqa: DTZ001 - no time zone is the fault
        ({"begun_at": NOON - timedelta(days=10, microseconds=1)}, "begun_at"),
        ({"begun_at": NOON + timedelta(minutes=5, microseconds=1)}, "begun_at"),
        ({"outcome": Outcome.UNSPECIFIED}, "outcome"),
        ({"outcome": Outcome(-1)}, "outcome"),
        ({"usage": Usage(input_tokens=MAX_TOKENS + 1)}, "usage.input_tokens"),
        ({"usage": Usage(output_tokens=2**64 - 1)}, "usage.output_tokens"),
        ({"usage": Usage(cached_input_tokens=MAX_TOKENS + 1)}, "usage.cached_input_tokens"),
        ({"principal": Principal(org="\0")}, "principal.org"),
        ({"target": Target(model="a\0")}, "target.model"),
        ({"model_asked": "\0a"}, "model_asked"),
    ],
)
async def test_an_unfit_entry_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    """The whole batch is refused; the error names field, entry and place, so that the sender can set it aside."""
    store, bad = FakeEntryStore(), an_entry(**changes)
    with pytest.raises(InvalidRequest) as refused:
        await _send(store, RecordRequest(sequence=1, entries=[an_entry(), bad, an_entry()]))
    assert refused.value.param == f"entries[1].{field}"
    assert field in refused.value.message
    shown = bad.entry_id[:32].hex()
    assert refused.value.details == {"entry_id": shown, "index": "1", "sequence": "1"}
    assert store.entries == {}


async def test_an_entry_that_only_the_store_refuses_is_named_too() -> None:
    """What validation does not foresee must not hold up a sender either."""

    class Picky(FakeEntryStore):
        async def write(self, entries: Any) -> int:
            return await super().write([*entries[:1], *_spoiled(entries[1:])])

    with pytest.raises(InvalidRequest) as refused:
        await _send(Picky(), RecordRequest(sequence=1, entries=[an_entry(), an_entry(entry_id=b"b" * 16)]))
    assert refused.value.details["entry_id"] == (b"b" * 16).hex()
    assert refused.value.param == "entries[1]"


def _spoiled(entries: Any) -> Any:
    for entry in entries:
        entry.sound.entry.model_asked = "\0"
    return entries


async def test_an_outcome_of_a_newer_contract_is_kept() -> None:
    """A router may be newer than its ledger; what it records is not lost."""
    store = FakeEntryStore()
    assert await _send(store, RecordRequest(sequence=1, entries=[an_entry(outcome=Outcome(77))])) == [1]


@pytest.mark.parametrize("sequences", [[0], [2], [1, 1], [1, 3], [1, 2, 1]])
async def test_a_gap_ends_the_stream(sequences: list[int]) -> None:
    """Batches are numbered from 1 without gaps; what came before the gap stays."""
    store = FakeEntryStore()
    with pytest.raises(InvalidRequest) as refused:
        await _send(store, *(RecordRequest(sequence=n, entries=[an_entry()]) for n in sequences))
    assert refused.value.param == "sequence"
    assert "entry_id" not in refused.value.details
    assert len(store.entries) == len(sequences) - 1


async def test_a_batch_has_a_limit() -> None:
    """1,000 entries are taken, 1,001 are not."""
    entries: list[Entry] = [an_entry() for _ in range(1_001)]
    assert await _send(FakeEntryStore(), RecordRequest(sequence=1, entries=entries[:1_000])) == [1]
    with pytest.raises(InvalidRequest) as refused:
        await _send(FakeEntryStore(), RecordRequest(sequence=1, entries=entries))
    assert refused.value.param == "entries"
