"""A key store made by the former release, brought up to date while that release still runs."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from gen.weir.auth.v1 import Key
from meshkit.postgres import DatabaseUnavailableError, migrate
from meshkit.tokens import mint
from services.auth.adapters.postgres import SCHEMA, PostgresKeyFeed, migrations
from services.auth.ports import StoreRead
from tests.fakes.auth import key_of

_FORMER = "0001_keys.sql"
_NEW = sorted(script.name for script in migrations().iterdir() if "0002" <= script.name[:4] <= "9999")
_TIMEOUT = timedelta(seconds=10)
_ADD = (
    "INSERT INTO auth.key (id, secret_sha256, org, team, label, created_at, expires_at, revoked_at)"
    " VALUES (%s, %s, 'acme', 'search', 'a key', %s, %s, %s)"
)
_FIND = (
    "SELECT id, secret_sha256, org, team, label, created_at, expires_at, revoked_at"
    " FROM auth.key WHERE id = %s"
)


@pytest.fixture
async def former(postgres_dsn: str, tmp_path: Path) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection of the former release's, to the store that it made."""
    (tmp_path / _FORMER).write_bytes(migrations().joinpath(_FORMER).read_bytes())
    assert await migrate(postgres_dsn, SCHEMA, tmp_path) == [_FORMER]
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


async def _add(former: psycopg.AsyncConnection) -> Key:
    """A key as the former release added one."""
    key = key_of(mint(secrets.token_bytes))
    await former.execute(
        _ADD, (key.id, key.secret_sha256, key.created_at, key.expires_at, key.revoked_at), prepare=True
    )
    return key


async def _version(former: psycopg.AsyncConnection) -> int:
    row = await (await former.execute("SELECT version FROM auth.key_set")).fetchone()
    assert row is not None
    return int(row[0])


async def _read(dsn: str, after_version: int) -> StoreRead:
    """What this release reads."""
    feed = PostgresKeyFeed(dsn, _TIMEOUT, _TIMEOUT)
    try:
        return await feed.read(after_version)
    finally:
        await feed.close()


async def test_keys_keep_what_they_could_do(postgres_dsn: str, former: psycopg.AsyncConnection) -> None:
    """Each is unlimited as before, and none counts as changed."""
    keys = [await _add(former) for _ in range(3)]
    before = await _version(former)
    assert await migrate(postgres_dsn, SCHEMA, migrations()) == _NEW
    read = await _read(postgres_dsn, 0)
    assert [change.key for change in read.changes] == keys
    assert (read.version, list((await _read(postgres_dsn, before)).changes)) == (before, [])


async def test_one_of_many_starters_upgrades(postgres_dsn: str, former: psycopg.AsyncConnection) -> None:
    """The others wait for it and find nothing to do."""
    key = await _add(former)
    starters = (migrate(postgres_dsn, SCHEMA, migrations()) for _ in range(5))
    assert sorted(await asyncio.gather(*starters)) == [[], [], [], [], _NEW]
    assert [change.key for change in (await _read(postgres_dsn, 0)).changes] == [key]


async def test_the_former_release_goes_on(postgres_dsn: str, former: psycopg.AsyncConnection) -> None:
    """What it prepared before the upgrade it finds and adds after it; to this release its keys are unlimited."""
    old = await _add(former)
    before = await (await former.execute(_FIND, (old.id,), prepare=True)).fetchone()
    await migrate(postgres_dsn, SCHEMA, migrations())
    new = await _add(former)
    assert await (await former.execute(_FIND, (old.id,), prepare=True)).fetchone() == before
    assert [change.key for change in (await _read(postgres_dsn, 0)).changes] == [old, new]


async def test_an_upgrade_does_not_hold_up_readers(
    postgres_dsn: str, former: psycopg.AsyncConnection
) -> None:
    """Where a long transaction has the table it gives up soon and changes nothing; the next start upgrades."""
    key = await _add(former)
    async with former.transaction():
        await former.execute(_FIND, (key.id,))
        async with asyncio.timeout(_TIMEOUT.total_seconds()):
            with pytest.raises(DatabaseUnavailableError, match="lock timeout"):
                await migrate(postgres_dsn, SCHEMA, migrations())
    applied = await (await former.execute("SELECT name FROM auth.migration")).fetchall()
    assert applied == [(_FORMER,)]
    assert await migrate(postgres_dsn, SCHEMA, migrations()) == _NEW
