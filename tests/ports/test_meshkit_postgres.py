"""Migrations and the pool, on a real PostgreSQL."""

import asyncio
import traceback
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from meshkit.postgres import DatabaseUnavailableError, MigrationError, migrate, open_pool


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder with two migrations and a file that is none."""
    _write(
        tmp_path, "0001_thing.sql", "CREATE TABLE thing (x int); INSERT INTO thing VALUES (1); -- 100 % %s"
    )
    _write(tmp_path, "0002_more.sql", "INSERT INTO thing VALUES (2)")
    _write(tmp_path, "README.md", "not SQL")
    return tmp_path


def _write(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content, encoding="utf-8")


def _things(dsn: str) -> list[int]:
    with psycopg.connect(dsn) as connection:
        return [x for (x,) in connection.execute("SELECT x FROM part.thing ORDER BY x")]


async def test_scripts_are_applied_once_in_order(postgres_dsn: str, scripts: Path) -> None:
    """In the schema, which is made; a second run finds nothing to do, a later script is applied alone."""
    assert await migrate(postgres_dsn, "part", scripts) == ["0001_thing.sql", "0002_more.sql"]
    assert await migrate(postgres_dsn, "part", scripts) == []
    _write(scripts, "0010_last.sql", "INSERT INTO thing VALUES (3)")
    assert await migrate(postgres_dsn, "part", scripts) == ["0010_last.sql"]
    assert _things(postgres_dsn) == [1, 2, 3]


async def test_several_starters_apply_each_script_once(postgres_dsn: str, scripts: Path) -> None:
    """They take turns; one of them does the work."""
    applied = await asyncio.gather(*(migrate(postgres_dsn, "part", scripts) for _ in range(5)))
    assert sorted(map(len, applied)) == [0, 0, 0, 0, 2]
    assert _things(postgres_dsn) == [1, 2]


async def test_a_changed_script_is_an_error_that_names_it(postgres_dsn: str, scripts: Path) -> None:
    """What was applied is history; nothing else is applied either."""
    await migrate(postgres_dsn, "part", scripts)
    _write(scripts, "0001_thing.sql", "CREATE TABLE other ()")
    _write(scripts, "0003_new.sql", "INSERT INTO thing VALUES (3)")
    with pytest.raises(MigrationError, match=r"0001_thing\.sql was changed"):
        await migrate(postgres_dsn, "part", scripts)
    assert _things(postgres_dsn) == [1, 2]


async def test_a_late_script_with_a_low_number_is_an_error(postgres_dsn: str, scripts: Path) -> None:
    """Forward only: two branches that were merged must agree on an order first."""
    (scripts / "0001_thing.sql").rename(scripts / "0003_thing.sql")
    (scripts / "0002_more.sql").unlink()
    await migrate(postgres_dsn, "part", scripts)
    _write(scripts, "0002_late.sql", "SELECT 1")
    with pytest.raises(MigrationError, match=r"0002_late\.sql comes before 0003_thing\.sql"):
        await migrate(postgres_dsn, "part", scripts)


async def test_a_failed_script_leaves_nothing_behind(postgres_dsn: str, scripts: Path) -> None:
    """It is named; those before it stay; once it is right it is applied."""
    _write(scripts, "0003_bad.sql", "INSERT INTO thing VALUES (3); SELECT nonsense")
    with pytest.raises(MigrationError, match=r"0003_bad\.sql: .*nonsense"):
        await migrate(postgres_dsn, "part", scripts)
    assert _things(postgres_dsn) == [1, 2]
    _write(scripts, "0003_bad.sql", "INSERT INTO thing VALUES (4)")
    assert await migrate(postgres_dsn, "part", scripts) == ["0003_bad.sql"]


async def test_an_older_release_leaves_newer_scripts_alone(postgres_dsn: str, scripts: Path) -> None:
    """So that a release can be rolled back."""
    await migrate(postgres_dsn, "part", scripts)
    (scripts / "0002_more.sql").unlink()
    assert await migrate(postgres_dsn, "part", scripts) == []


@pytest.mark.parametrize("name", ["1_thing.sql", "0003-thing.sql", "0001_other.sql"])
async def test_a_misnamed_script_is_an_error_that_names_it(
    postgres_dsn: str, scripts: Path, name: str
) -> None:
    """Neither skipped nor guessed at; a number stands once."""
    _write(scripts, name, "SELECT 1")
    with pytest.raises(MigrationError, match=name.partition("_")[0]):
        await migrate(postgres_dsn, "part", scripts)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://who:s3cret@127.0.0.1:1/db",
        "host=127.0.0.1 port=1 passwrod=s3cret",
        "host s3cret",
        "postgresql://who:s3cret@[::1/db",
    ],
)
async def test_an_error_never_holds_the_password(scripts: Path, dsn: str) -> None:
    """Neither in its text nor in the traceback that a log would show; nor does the pool's."""
    with pytest.raises(DatabaseUnavailableError) as unavailable:
        await migrate(dsn, "part", scripts)
    assert "s3cret" not in "".join(traceback.format_exception(unavailable.value))


def test_a_pool_for_a_malformed_dsn_is_refused() -> None:
    """At once, not when the first connection is wanted."""
    with pytest.raises(DatabaseUnavailableError, match="not a valid connection string"):
        open_pool("host s3cret", name="test")


async def test_an_unreachable_server_is_named(scripts: Path) -> None:
    """Host, port, database and user, so that the fault can be found."""
    with pytest.raises(DatabaseUnavailableError, match=r"host=127\.0\.0\.1 port=1 dbname=db user=who"):
        await migrate("postgresql://who:s3cret@127.0.0.1:1/db", "part", scripts)


async def test_a_pools_connections_are_set_up(postgres_dsn: str) -> None:
    """Limits, time zone, name, and commits that last even where the database says otherwise."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        database = psycopg.sql.Identifier(connection.info.dbname)
        change = psycopg.sql.SQL("ALTER DATABASE {} SET synchronous_commit TO off")
        connection.execute(change.format(database))
    names = ("statement_timeout", "timezone", "application_name", "synchronous_commit")
    async with (
        open_pool(postgres_dsn, name="part", statement_timeout=timedelta(seconds=3)) as pool,
        pool.connection() as pooled,
    ):
        query = "SELECT current_setting(name) FROM unnest(%s::text[]) AS name"
        assert [value async for (value,) in await pooled.execute(query, (list(names),))] == [
            "3s",
            "UTC",
            "part",
            "on",
        ]


async def test_a_broken_connection_costs_no_statement(postgres_dsn: str) -> None:
    """A connection that died in the pool is replaced before it is handed out."""
    async with open_pool(postgres_dsn, name="part", max_size=1) as pool:
        async with pool.connection() as connection:
            first = connection.info.backend_pid
        with psycopg.connect(postgres_dsn, autocommit=True) as other:
            # Waits until the backend is gone, 10 s at most.
            other.execute("SELECT pg_terminate_backend(%s, 10000)", (first,))
        async with pool.connection() as connection:
            assert connection.info.backend_pid != first
