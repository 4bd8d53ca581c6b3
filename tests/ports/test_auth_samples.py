"""SampleStore: one suite over the fake and over PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from gen.weir.auth.v1 import Sample
from meshkit.postgres import migrate, open_pool
from services.auth.adapters.postgres import SCHEMA, migrations
from services.auth.adapters.postgres_samples import PostgresSampleStore
from services.auth.ports import SampleStore
from tests.fakes.auth import MOMENT
from tests.fakes.auth_samples import FakeSampleStore

_TIMEOUT = timedelta(seconds=5)
SAMPLE = Sample(
    at=MOMENT,
    request_id="req_1",
    key_id="one",
    model="auto",
    target="local",
    prompt='{"messages":[]}',
    answer="Grüße \N{GRINNING FACE}",
    partial=True,
)


@pytest.fixture(params=["fake", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[SampleStore]:
    """The subject."""
    if request.param == "fake":
        yield FakeSampleStore()
        return
    dsn = request.getfixturevalue("postgres_dsn")
    await migrate(dsn, SCHEMA, migrations())
    pool = open_pool(dsn, name="test")
    await pool.open()
    yield PostgresSampleStore(pool, _TIMEOUT)
    await pool.close()


async def test_what_was_kept_comes_back(store: SampleStore) -> None:
    """Unchanged, those kept last first, of one key or of all, and not more than asked for."""
    others = [replace(SAMPLE, key_id="two", request_id=f"req_{number}", partial=False) for number in (2, 3)]
    await store.add([SAMPLE])
    await store.add(others)
    assert await store.newest("", 10) == [*reversed(others), SAMPLE]
    assert await store.newest("one", 10) == [SAMPLE]
    assert await store.newest("two", 1) == [others[1]]
    assert await store.newest("nobody", 10) == []


async def test_removal(store: SampleStore) -> None:
    """What began before goes, what began at the moment itself stays."""
    late = replace(SAMPLE, at=MOMENT + timedelta(hours=1))
    await store.add([SAMPLE, late])
    assert await store.forget(MOMENT, 10) == 0
    assert await store.forget(MOMENT + timedelta(hours=1), 1) == 1
    assert await store.forget(MOMENT + timedelta(hours=1), 1) == 0
    assert await store.newest("", 10) == [late]
