"""What every EntryStore does: the one in memory that other tests use, and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from importlib import resources

import pytest

from gen.weir.ledger.v1 import Outcome, UsageRow
from gen.weir.type.v1 import Principal, Target, Usage
from meshkit.postgres import migrate, open_pool
from meshkit.telemetry import Logger
from services.ledger.adapters.postgres import SCHEMA, PostgresEntryStore
from services.ledger.domain.reader import Team
from services.ledger.ports import EntryRefusedError, EntryStore
from tests.fakes.ledger import NOON, FakeEntryStore, an_entry, charged

UNTIL = NOON + timedelta(days=400)


@pytest.fixture(params=["fake", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[EntryStore]:
    """An empty store of each kind."""
    async with AsyncExitStack() as exits:
        if request.param == "fake":
            yield FakeEntryStore()
            return
        dsn = request.getfixturevalue("postgres_dsn")
        await migrate(dsn, SCHEMA, resources.files("services.ledger.adapters").joinpath("migrations"))
        pool = open_pool(dsn, name="test")
        await pool.open()
        exits.push_async_callback(pool.close)
        yield PostgresEntryStore(pool, Logger("test"))


def _totals(rows: list[UsageRow]) -> tuple[int, int]:
    return sum(row.attempts for row in rows), sum(row.cost_nano_usd for row in rows)


async def test_an_empty_store_has_no_usage(store: EntryStore) -> None:
    """No entry, no row."""
    assert await store.usage(None, UNTIL) == []


async def test_nothing_is_written_from_an_empty_batch(store: EntryStore) -> None:
    """A batch may be empty."""
    assert await store.write([]) == 0


async def test_a_row_has_every_sum(store: EntryStore) -> None:
    """One row for one group, with the sum of each number and `estimated` if any was."""
    usages = [
        Usage(input_tokens=10, output_tokens=1, cached_input_tokens=4),
        Usage(input_tokens=20, output_tokens=2, cached_input_tokens=0, estimated=True),
        Usage(input_tokens=30, output_tokens=3),
    ]
    entries = [charged(an_entry(usage=usage), nano_usd=7) for usage in usages]
    assert await store.write([*entries, charged(an_entry(usage=None), nano_usd=None)]) == 4
    assert await store.usage(None, UNTIL) == [
        UsageRow(
            principal=Principal(key_id="key_1", org="acme", team="blue"),
            model_asked="auto",
            target="cloud-mini",
            outcome=Outcome.OK,
            attempts=4,
            usage=Usage(input_tokens=60, output_tokens=6, cached_input_tokens=4, estimated=True),
            cost_nano_usd=21,
            unpriced_attempts=1,
        )
    ]


async def test_cached_tokens_stay_unknown(store: EntryStore) -> None:
    """Where no provider spoke of cached tokens their sum is absent, not zero."""
    await store.write([charged(an_entry())])
    (row,) = await store.usage(None, UNTIL)
    assert row.usage is not None
    assert row.usage.cached_input_tokens is None


async def test_the_same_batch_again_changes_nothing(store: EntryStore) -> None:
    """A batch is written once however often it comes."""
    batch = [charged(an_entry(), nano_usd=5) for _ in range(3)]
    assert await store.write(batch) == 3
    assert await store.write(batch) == 0
    assert await store.write([*batch, charged(an_entry(), nano_usd=5)]) == 1
    assert _totals(await store.usage(None, UNTIL)) == (4, 20)


async def test_an_entry_twice_in_a_batch_counts_once(store: EntryStore) -> None:
    """A sender may repeat itself within a batch."""
    entry = charged(an_entry(), nano_usd=5)
    assert await store.write([entry, entry]) == 1
    assert _totals(await store.usage(None, UNTIL)) == (1, 5)


async def test_the_first_writing_of_an_entry_stays(store: EntryStore) -> None:
    """An entry is fixed once written."""
    first = an_entry()
    await store.write([charged(first, nano_usd=5)])
    changed = an_entry(entry_id=first.entry_id, begun_at=first.begun_at, model_asked="other")
    assert await store.write([charged(changed, nano_usd=9)]) == 0
    (row,) = await store.usage(None, UNTIL)
    assert (row.model_asked, row.cost_nano_usd) == ("auto", 5)


async def test_senders_of_the_same_entries_do_not_double_them(store: EntryStore) -> None:
    """Several streams may bring the same entries at once, in any order: an adopted spool does."""
    batch = [charged(an_entry(), nano_usd=1) for _ in range(50)]
    written = await asyncio.gather(*(store.write(batch[:: 1 - 2 * (turn % 2)]) for turn in range(6)))
    assert sum(written) == 50
    assert _totals(await store.usage(None, UNTIL)) == (50, 50)


async def test_usage_begins_with_since_and_ends_before_until(store: EntryStore) -> None:
    """The span is half open, to the microsecond."""
    tick = timedelta(microseconds=1)
    moments = [NOON - tick, NOON, NOON + tick, NOON + 2 * tick]
    await store.write([charged(an_entry(begun_at=moment), nano_usd=1) for moment in moments])
    assert _totals(await store.usage(NOON, NOON + 2 * tick)) == (2, 2)
    assert _totals(await store.usage(None, NOON)) == (1, 1)
    assert await store.usage(NOON, NOON) == []


async def test_usage_of_one_team(store: EntryStore) -> None:
    """Both names must fit, exactly; a name is never a pattern, and an empty one stands for itself."""
    teams = [("acme", "red"), ("acme", "Red"), ("acme", "blue"), ("other", "red"), ("", ""), ("%", "red")]
    owners = [Principal(key_id="key_1", org=org, team=team) for org, team in teams]
    await store.write([charged(an_entry(principal=owner)) for owner in owners])
    for owner in owners:
        rows = await store.usage(None, UNTIL, Team(owner.org, owner.team))
        assert [row.principal for row in rows] == [owner]
    assert await store.usage(None, UNTIL, Team("acme", "green")) == []
    assert await store.usage(NOON, UNTIL, Team("acme", "red")) == []
    assert len(await store.usage(None, UNTIL)) == len(teams)


async def test_the_costliest_come_first_then_by_name(store: EntryStore) -> None:
    """Rows of the same cost stand in the order of their names, byte by byte."""
    costs = {"b": 1, "a": 1, "Z": 1, "é": 1, "rich": 10, "free": 0}
    await store.write([charged(an_entry(target=Target(name=name)), cost) for name, cost in costs.items()])
    rows = await store.usage(None, UNTIL)
    assert [row.target for row in rows] == ["rich", "Z", "a", "b", "é", "free"]


async def test_every_part_of_the_group_makes_a_row_of_its_own(store: EntryStore) -> None:
    """Org, team, key, model asked, target and outcome each tell rows apart."""
    changes: list[dict[str, object]] = [
        {},
        {"principal": Principal(key_id="key_2", org="acme", team="blue")},
        {"principal": Principal(key_id="key_1", org="other", team="blue")},
        {"principal": Principal(key_id="key_1", org="acme", team="red")},
        {"principal": None},
        {"model_asked": "cloud"},
        {"target": None},
        {"outcome": Outcome.CUT},
    ]
    await store.write([charged(an_entry(**change)) for change in changes])
    assert [row.attempts for row in await store.usage(None, UNTIL)] == [1] * len(changes)


async def test_an_entry_that_cannot_be_kept_is_named(store: EntryStore) -> None:
    """The refusal names the entry's index; without it the others are written, none of them twice."""
    good = [charged(an_entry(), nano_usd=1) for _ in range(3)]
    bad = charged(an_entry(model_asked="a\0b"), nano_usd=1)
    with pytest.raises(EntryRefusedError) as refused:
        await store.write([*good[:2], bad, good[2]])
    assert refused.value.index == 2
    await store.write(good)
    assert _totals(await store.usage(None, UNTIL)) == (3, 3)


async def test_entries_of_many_days_go_in_one_batch(store: EntryStore) -> None:
    """A spool that was long offline holds entries of many days."""
    moments = [NOON + timedelta(days=days) for days in range(40)]
    assert await store.write([charged(an_entry(begun_at=moment)) for moment in moments]) == 40
    assert _totals(await store.usage(moments[10], moments[12]))[0] == 2


async def test_large_numbers_are_kept_exactly(store: EntryStore) -> None:
    """Costs and counts near the limits survive, where a float would not hold them."""
    usage = Usage(input_tokens=10**9, output_tokens=10**9 - 1)
    await store.write([charged(an_entry(usage=usage), nano_usd=2 * 10**18 + 1) for _ in range(3)])
    (row,) = await store.usage(None, UNTIL)
    assert row.usage is not None
    assert (row.cost_nano_usd, row.usage.output_tokens) == (6 * 10**18 + 3, 3 * (10**9 - 1))
