"""What only the store in PostgreSQL does: columns, partitions, and PostgreSQL's own failures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row

from gen.weir.ledger.v1 import Entry, Outcome
from gen.weir.type.v1 import Locality, Principal, Target, Usage
from meshkit.errors import LedgerUnavailable
from meshkit.postgres import migrate, open_pool
from meshkit.telemetry import Logger
from meshkit.wire_time import NanoDatetime
from services.ledger.adapters.postgres import SCHEMA, PostgresEntryStore
from tests.fakes.ledger import NOON, an_entry, charged

SHORT = timedelta(milliseconds=200)


@asynccontextmanager
async def _store(
    dsn: str, statement_timeout: timedelta = timedelta(seconds=10)
) -> AsyncIterator[PostgresEntryStore]:
    await migrate(dsn, SCHEMA, resources.files("services.ledger.adapters").joinpath("migrations"))
    pool = open_pool(
        dsn,
        name="test",
        max_size=2,
        checkout_timeout=timedelta(seconds=1),
        statement_timeout=statement_timeout,
    )
    await pool.open()
    try:
        yield PostgresEntryStore(pool, Logger("test"))
    finally:
        await pool.close()


def _days(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ledger.entry'::regclass ORDER BY 1"
        )
        return [name for (name,) in rows]


async def _until_waiting(connection: AsyncConnection, waiters: int) -> None:
    """Returns once that many statements wait for a lock in this database."""
    async with asyncio.timeout(10):
        while True:
            cursor = await connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            if await cursor.fetchone() == (waiters,):
                return


async def test_every_field_has_its_column(postgres_dsn: str) -> None:
    """A full entry is read back as it was sent, durations in microseconds."""
    entry = Entry(
        entry_id=UUID(int=7).bytes,
        begun_at=NOON,
        request_id="req_7",
        attempt=3,
        principal=Principal(key_id="k", org="o", team="t"),
        model_asked="gpt-4",
        target=Target(name="n", locality=Locality.CLOUD, provider="p", model="m", sandbox=True),
        route_reason="because, 'quoted' \\ and \"quoted\" — ü",
        outcome=Outcome.CUT,
        error_reason="UPSTREAM_TRUNCATED",
        usage=Usage(input_tokens=3, output_tokens=2, cached_input_tokens=1, estimated=True),
        latency=timedelta(seconds=2, microseconds=1),
        first_token=timedelta(microseconds=5),
    )
    async with _store(postgres_dsn) as store:
        await store.write([charged(entry, nano_usd=99)])
    with psycopg.connect(postgres_dsn, row_factory=dict_row) as connection:
        row = connection.execute("SELECT * FROM ledger.entry").fetchone()
    assert row is not None
    assert abs(row.pop("recorded_at") - datetime.now(UTC)) < timedelta(minutes=1)
    assert row == {
        "begun_at": NOON,
        "entry_id": UUID(int=7),
        "request_id": "req_7",
        "attempt": 3,
        "key_id": "k",
        "org": "o",
        "team": "t",
        "model_asked": "gpt-4",
        "target_name": "n",
        "target_locality": 2,
        "target_provider": "p",
        "target_model": "m",
        "target_sandbox": True,
        "route_reason": "because, 'quoted' \\ and \"quoted\" — ü",
        "outcome": 3,
        "error_reason": "UPSTREAM_TRUNCATED",
        "input_tokens": 3,
        "output_tokens": 2,
        "cached_input_tokens": 1,
        "usage_estimated": True,
        "latency_us": 2_000_001,
        "first_token_us": 5,
        "cost_nano_usd": 99,
        "price_version": "test-price",
        "unpriced": False,
    }


async def test_what_is_absent_is_null(postgres_dsn: str) -> None:
    """No first token, no latency, no price: null, and marked as unpriced."""
    async with _store(postgres_dsn) as store:
        await store.write([charged(an_entry(latency=None, first_token=None), nano_usd=None)])
    with psycopg.connect(postgres_dsn) as connection:
        row = connection.execute(
            "SELECT latency_us, first_token_us, cost_nano_usd, price_version, unpriced FROM ledger.entry"
        ).fetchone()
    assert row == (None, None, None, None, True)


async def test_nanoseconds_do_not_make_a_second_entry(postgres_dsn: str) -> None:
    """The key counts microseconds: a sender that keeps more of begun_at and one that does not mean the same entry."""
    first = an_entry()
    assert first.begun_at is not None
    again = an_entry(entry_id=first.entry_id, begun_at=NanoDatetime.extend(first.begun_at, 999))
    async with _store(postgres_dsn) as store:
        assert await store.write([charged(first)]) == 1
        assert await store.write([charged(again)]) == 0


async def test_each_day_has_a_partition_in_utc(postgres_dsn: str) -> None:
    """Days are made ahead and on demand, and begin at midnight UTC whatever the server's own time zone is."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET timezone TO 'Pacific/Auckland'").format(database))
    async with _store(postgres_dsn) as store:
        await store.prepare(date(2026, 2, 28), date(2026, 3, 1))
        midnight = datetime(2026, 3, 2, tzinfo=UTC)
        moments = [midnight - timedelta(microseconds=1), midnight]
        await store.write([charged(an_entry(begun_at=moment)) for moment in moments])
    assert _days(postgres_dsn) == [
        "ledger.entry_20260228",
        "ledger.entry_20260301",
        "ledger.entry_20260302",
    ]


async def test_ledgers_that_start_together_make_each_day_once(postgres_dsn: str) -> None:
    """Several processes prepare days and write to new ones at the same time."""
    async with _store(postgres_dsn) as one, _store(postgres_dsn) as two, _store(postgres_dsn) as three:
        stores = [one, two, three]
        moments = [NOON + timedelta(days=days) for days in range(5)]
        await asyncio.gather(
            *(store.prepare(NOON.date(), NOON.date() + timedelta(days=6)) for store in stores),
            *(store.write([charged(an_entry(begun_at=moment)) for moment in moments]) for store in stores),
        )
    assert len(_days(postgres_dsn)) == 7


async def test_a_day_is_made_while_someone_reads(postgres_dsn: str) -> None:
    """A long report does not hold up the first entry of a new day."""
    async with _store(postgres_dsn, statement_timeout=timedelta(seconds=2)) as store:
        await store.write([charged(an_entry())])
        async with await AsyncConnection.connect(postgres_dsn) as reader:
            await reader.execute("SELECT count(*) FROM ledger.entry")  # its transaction stays open
            assert await store.write([charged(an_entry(begun_at=NOON + timedelta(days=1)))]) == 1


async def test_a_dropped_day_is_made_again(postgres_dsn: str) -> None:
    """Old days may be dropped while a ledger runs; a late entry makes its day again."""
    async with _store(postgres_dsn) as store:
        await store.write([charged(an_entry())])
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute("DROP TABLE ledger.entry_20260301")
        assert await store.write([charged(an_entry()), charged(an_entry())]) == 2


async def test_no_answer_in_time_is_an_outage(postgres_dsn: str) -> None:
    """A locked table: both methods give up after the statement timeout, and the store is well again afterwards."""
    async with _store(postgres_dsn, statement_timeout=SHORT) as store:
        await store.write([charged(an_entry())])
        async with await AsyncConnection.connect(postgres_dsn) as other:
            await other.execute("LOCK TABLE ledger.entry IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(LedgerUnavailable):
                await store.write([charged(an_entry())])
            with pytest.raises(LedgerUnavailable):
                await store.usage(None, NOON)
        assert len(await store.usage(None, NOON)) == 1


async def test_a_full_pool_is_an_outage(postgres_dsn: str) -> None:
    """More callers than connections, all of them waiting for a lock: the last is told to come again."""
    async with _store(postgres_dsn) as store:
        await store.write([charged(an_entry())])
        async with await AsyncConnection.connect(postgres_dsn) as other:
            await other.execute("LOCK TABLE ledger.entry IN ACCESS EXCLUSIVE MODE")
            waiting = [asyncio.create_task(store.write([charged(an_entry())])) for _ in range(2)]
            await _until_waiting(other, 2)
            with pytest.raises(LedgerUnavailable, match="PoolTimeout"):
                await store.usage(None, NOON)
        assert await asyncio.gather(*waiting) == [1, 1]
