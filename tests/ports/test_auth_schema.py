"""What the schema itself promises, whoever writes to it: keys are changed by hand too."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql

from meshkit.postgres import migrate
from services.auth.adapters.postgres import SCHEMA, PostgresKeyFeed, migrations

_TIMEOUT = timedelta(seconds=5)


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection to an empty key store."""
    await migrate(postgres_dsn, SCHEMA, migrations())
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


async def _version(database: psycopg.AsyncConnection) -> int:
    row = await (await database.execute("SELECT version FROM auth.key_set")).fetchone()
    assert row is not None
    return int(row[0])


async def test_versions_follow_the_clock(database: psycopg.AsyncConnection) -> None:
    """A database made anew does not give a version again that a router may hold from the former one."""
    held = await _version(database)
    assert abs(held / 1_000 - datetime.now(UTC).timestamp()) < 60


async def test_a_change_rolled_back_leaves_no_trace(database: psycopg.AsyncConnection) -> None:
    """Neither key nor version."""
    before = await _version(database)
    with pytest.raises(psycopg.errors.CheckViolation):
        await database.execute(
            "INSERT INTO auth.key (id, secret_sha256, org, team, label, created_at)"
            " VALUES ('a', 'short', 'o', 't', '', now())"
        )
    assert await _version(database) == before


@pytest.mark.parametrize(
    "patterns",
    [
        [""], ["two words"], ["\u00e9"], ["\n"], ["ok", "\x7f"], ["x" * 129], ["x"] * 101, [None], ["a", None],
        [["a"], ["b"]], None,
    ],
    ids=ascii,
)  # fmt: skip
@pytest.mark.parametrize("column", ["models", "targets"])
async def test_patterns_set_by_hand_are_checked_too(
    database: psycopg.AsyncConnection, column: str, patterns: object
) -> None:
    """What CreateKey refuses the database refuses."""
    await _insert(database)
    update = sql.SQL("UPDATE auth.key SET {} = %s").format(sql.Identifier(column))
    with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.NotNullViolation)):
        await database.execute(update, (patterns,))
    await database.execute(update, (["x" * 128] * 99 + ["!~"],))
    await database.execute(update, ([],))


@pytest.mark.parametrize(
    "moment", ["-infinity", "infinity", "0001-12-31 23:59:59+00 BC", "10000-01-01 00:00:00+00"]
)
@pytest.mark.parametrize("column", ["created_at", "expires_at", "revoked_at"])
async def test_moments_that_cannot_be_read_are_refused(
    database: psycopg.AsyncConnection, column: str, moment: str
) -> None:
    """One key with such a time would make the key set unreadable for all."""
    await _insert(database)
    update = sql.SQL("UPDATE auth.key SET {} = %s").format(sql.Identifier(column))
    with pytest.raises(psycopg.errors.CheckViolation):
        await database.execute(update, (moment,))


async def test_the_first_and_last_moments_can_be_read(
    postgres_dsn: str, database: psycopg.AsyncConnection
) -> None:
    """The years 1 to 9999, which is what a Timestamp of the contract can say."""
    await _insert(database)
    await database.execute(
        "UPDATE auth.key SET created_at = '0001-01-01 00:00:00+00',"
        " expires_at = '9999-12-31 23:59:59.999999+00', revoked_at = '9999-12-31 23:59:59.999999+00'"
    )
    feed = PostgresKeyFeed(postgres_dsn, _TIMEOUT, _TIMEOUT)
    (change,) = (await feed.read(0)).changes
    await feed.close()
    last = datetime.max.replace(tzinfo=UTC)
    assert (change.key.created_at, change.key.expires_at) == (datetime.min.replace(tzinfo=UTC), last)
    assert change.key.revoked_at == last


async def _insert(database: psycopg.AsyncConnection) -> None:
    """One key, made by hand."""
    await database.execute(
        "INSERT INTO auth.key (id, secret_sha256, org, team, label, created_at)"
        " VALUES ('a', decode(repeat('00', 32), 'hex'), 'o', 't', '', now())"
    )


@pytest.mark.parametrize("statement", ["DELETE FROM auth.key", "TRUNCATE auth.key"])
async def test_keys_are_never_deleted(database: psycopg.AsyncConnection, statement: str) -> None:
    """No watcher would hear of it, and the key would go on being accepted."""
    with pytest.raises(psycopg.errors.RaiseException, match="revoked"):
        await database.execute(statement)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("owner", "x" * 101),
        ("labels", "[]"),
        ("labels", '{"Stage": "x"}'),
        ("labels", '{"stage": 1}'),
        ("labels", '{"stage": "' + "x" * 201 + '"}'),
        ("labels", "{" + ",".join(f'"l{number}": ""' for number in range(21)) + "}"),
        ("networks", "{10.0.0.1/8}"),
        ("networks", "{ten}"),
        ("networks", "{NULL}"),
        ("networks", "{" + ",".join(["10.0.0.0/8"] * 51) + "}"),
        ("scopes", "{}"),
        ("scopes", "{chat,dance}"),
        ("scopes", "{chat,NULL}"),
        ("scopes", "{chat,chat,chat,chat,chat,chat}"),
        ("requests_per_minute", "-1"),
        ("tokens_per_minute", "1000000000001"),
        ("concurrent_requests", "-1"),
        ("context_tokens", "-1"),
        ("previous_sha256", r"\x00"),
        ("previous_until", "2031-01-01"),
        ("previous_until", "infinity"),
        ("sampling", "1.1"),
        ("sampling", "-0.1"),
        ("sampling", "NaN"),
    ],
)
async def test_identity_set_by_hand_is_checked_too(
    database: psycopg.AsyncConnection, column: str, value: str
) -> None:
    """What CreateKey refuses the database refuses, and what would make the key set unreadable."""
    await _insert(database)
    update = sql.SQL("UPDATE auth.key SET {} = {}").format(sql.Identifier(column), sql.Literal(value))
    with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.InvalidTextRepresentation)):
        await database.execute(update)
