"""Usage, and the job that prepares days."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gen.weir.auth.v1 import Scope
from gen.weir.ledger.v1 import UsageRequest
from gen.weir.type.v1 import Principal
from meshkit.errors import Forbidden, InvalidRequest
from meshkit.telemetry import Logger
from services.ledger.domain.reader import Reader
from services.ledger.ports import Clock
from services.ledger.prepare_days import PrepareDays
from services.ledger.usage import Usage
from tests.fakes.ledger import NOON, FakeEntryStore, an_entry, charged

ADMIN = Reader(Principal(key_id="root", org="weir", team="admin"), frozenset({Scope.ADMIN}))


async def _attempts(request: UsageRequest) -> int:
    store = FakeEntryStore()
    moments = [NOON - timedelta(days=2), NOON - timedelta(hours=1), NOON + timedelta(hours=1)]
    await store.write([charged(an_entry(begun_at=moment)) for moment in moments])
    response = await Usage(store, lambda: NOON)(request, ADMIN)
    return sum(row.attempts for row in response.rows)


async def test_without_limits_usage_is_everything_up_to_now() -> None:
    """From the beginning; an entry whose router's clock runs ahead is not counted yet."""
    assert await _attempts(UsageRequest()) == 2


async def test_usage_of_a_span() -> None:
    """Both ends may be named."""
    day = timedelta(days=1)
    assert await _attempts(UsageRequest(since=NOON - day)) == 1
    assert await _attempts(UsageRequest(since=NOON - day, until=NOON + day)) == 2
    assert await _attempts(UsageRequest(until=NOON - day)) == 1


async def test_a_span_that_ends_before_it_begins_is_refused() -> None:
    """The field is named."""
    with pytest.raises(InvalidRequest) as refused:
        await _attempts(UsageRequest(since=NOON, until=NOON - timedelta(seconds=1)))
    assert refused.value.param == "since"


async def test_a_reader_sees_its_own_team() -> None:
    """Neither another team of its org nor the same name in another org; an admin sees all."""
    store = FakeEntryStore()
    teams = [("acme", "red"), ("acme", "blue"), ("other", "red")]
    owners = [Principal(key_id=f"{org}-{team}", org=org, team=team) for org, team in teams]
    await store.write([charged(an_entry(principal=owner)) for owner in owners])
    usage, reads = Usage(store, lambda: NOON), frozenset({Scope.USAGE_READ, Scope.CHAT})
    for owner in owners:
        rows = (await usage(UsageRequest(), Reader(owner, reads))).rows
        assert [row.principal for row in rows] == [owner]
    assert len((await usage(UsageRequest(), ADMIN)).rows) == len(teams)


@pytest.mark.parametrize("scopes", [{Scope.CHAT, Scope.EMBED}, {Scope.KEYS_WRITE}, set()])
async def test_without_the_scope_nothing_is_shown(scopes: set[Scope]) -> None:
    """The scopes that would do are named."""
    with pytest.raises(Forbidden, match=r"usage:read or admin"):
        await Usage(FakeEntryStore(), lambda: NOON)(
            UsageRequest(), Reader(ADMIN.principal, frozenset(scopes))
        )


async def test_days_are_prepared_in_utc() -> None:
    """Late in the evening west of Greenwich it is tomorrow already."""
    store, west = FakeEntryStore(), datetime.fromisoformat("2026-03-01T20:00:00-07:00")
    await _job(store, lambda: west).once()
    assert [day.isoformat() for day in sorted(store.days)] == ["2026-03-02", "2026-03-03", "2026-03-04"]


async def test_the_job_goes_on_after_a_failure() -> None:
    """While the store is down it tries again; once it is back the days are made."""
    store = FakeEntryStore()
    store.down = True
    looked = 0

    def clock() -> datetime:
        nonlocal looked
        looked += 1
        store.down = looked < 3
        return NOON.astimezone(UTC)

    job = asyncio.create_task(_job(store, clock).forever())
    try:
        async with asyncio.timeout(10):
            while not store.days:  # noqa: ASYNC110 - the job has no event to tell of its success
                await asyncio.sleep(0)
    finally:
        job.cancel()
    assert looked == 3


def _job(store: FakeEntryStore, clock: Clock) -> PrepareDays:
    return PrepareDays(
        store, clock, Logger("test"), ahead=timedelta(days=2), interval=timedelta(milliseconds=1)
    )
