"""PostgreSQL for services: numbered migrations and a pool of connections. Works on asyncio and on uvloop.

No error raised here holds a password: a DSN is named by its host, port, database and user alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from importlib.resources.abc import Traversable
from typing import NamedTuple

import psycopg
from psycopg import AsyncConnection, conninfo, sql
from psycopg_pool import AsyncConnectionPool

_SCRIPT_NAME = re.compile(r"(?P<number>\d{4})_[a-z0-9_]+\.sql")
_MIGRATION_LOCK = 0x77656972
"""Key of the advisory lock: "weir" in ASCII. One for all schemas: starters of all services take turns."""
_CONNECT_TIMEOUT_S = 5
_CONFIGURE = """
    SELECT set_config('statement_timeout', %s, false),
           set_config('timezone', 'UTC', false),
           -- A server that acknowledges before it has written would make every promise of ours a lie; the stricter
           -- settings of a replicated server stay.
           CASE current_setting('synchronous_commit')
               WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END
"""


class DatabaseUnavailableError(RuntimeError):
    """PostgreSQL cannot be used at present. The message says where it was looked for and what it answered."""


class MigrationError(RuntimeError):
    """The scripts do not fit what was applied before, or one of them failed; the message names the script."""


class _Script(NamedTuple):
    name: str
    content: bytes

    @property
    def checksum(self) -> str:
        return sha256(self.content).hexdigest()


async def migrate(dsn: str, schema: str, scripts: Traversable) -> list[str]:
    """Brings `schema` up to date and returns the names of the scripts that this call applied.

    The scripts are the `0001_name.sql` files of the folder `scripts`, applied in the order of their numbers,
    each in a transaction of its own, with `search_path` set to `schema` (created if missing).
    `<schema>.migration` keeps name and SHA-256 of each. Callers in several processes take turns. Scripts that
    a newer release applied and this one lacks are left alone.

    Raises:
        MigrationError: an applied script was changed, a new one has a lower number than an applied one, or
            one failed.
        DatabaseUnavailableError: PostgreSQL cannot be reached or refuses the connection.
    """
    known = _scripts(scripts)
    with _clear_errors(dsn):
        connection = await AsyncConnection.connect(_with_timeout(dsn), autocommit=True)
        async with connection:
            # Of the session: released when the connection ends, however it ends.
            await connection.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
            applied = await _applied(connection, schema)
            pending = _pending(known, applied)
            for script in pending:
                await _apply(connection, schema, script)
    return [script.name for script in pending]


def open_pool(
    dsn: str,
    *,
    name: str,
    max_size: int = 8,
    checkout_timeout: timedelta = timedelta(seconds=5),
    statement_timeout: timedelta = timedelta(seconds=10),
) -> AsyncConnectionPool[AsyncConnection]:
    """A pool for the running event loop, still closed: the caller awaits `open()` and in the end `close()`.

    Its connections are in autocommit mode (more than one statement: `async with connection.transaction()`), speak
    UTC, commit durably, and are checked when taken, so that a restart of PostgreSQL costs no failed
    statement. Whatever is wrong with the database later surfaces as a subclass of psycopg.OperationalError, a
    pool without a free connection included. Raises DatabaseUnavailableError if `dsn` is malformed.

    Args:
        dsn: libpq connection string or URL.
        name: of the pool; PostgreSQL shows it as application_name unless the DSN sets one.
        max_size: connections at most; one is kept at all times.
        checkout_timeout: how long to wait for a connection.
        statement_timeout: PostgreSQL gives up a statement after it.
    """
    limit_ms = max(1, statement_timeout // timedelta(milliseconds=1))

    async def configure(connection: AsyncConnection) -> None:
        await connection.execute(_CONFIGURE, (str(limit_ms),))

    with _clear_errors(dsn):
        target = _with_timeout(dsn, name)
    return AsyncConnectionPool(
        target,
        open=False,
        name=name,
        min_size=1,
        max_size=max_size,
        timeout=checkout_timeout.total_seconds(),
        kwargs={"autocommit": True},
        configure=configure,
        check=AsyncConnectionPool.check_connection,
        # The pool itself never stops trying; this is how long one round of back-off lasts.
        reconnect_timeout=30,
    )


def _scripts(folder: Traversable) -> list[_Script]:
    found: dict[str, _Script] = {}
    for file in folder.iterdir():
        if not file.name.endswith(".sql"):
            continue
        match = _SCRIPT_NAME.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"{file.name}: a migration is named 0001_name.sql")
        if match["number"] in found:
            raise MigrationError(f"{file.name}: {found[match['number']].name} has the same number")
        found[match["number"]] = _Script(file.name, file.read_bytes())
    return [found[number] for number in sorted(found)]


async def _applied(connection: AsyncConnection, schema: str) -> dict[str, str]:
    """Checksums by name."""
    target = sql.Identifier(schema)
    await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(target))
    await connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {}.migration ("
            " name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        ).format(target)
    )
    rows = await connection.execute(sql.SQL("SELECT name, checksum FROM {}.migration").format(target))
    return dict(await rows.fetchall())


def _pending(known: list[_Script], applied: dict[str, str]) -> list[_Script]:
    newest = max(applied, default="")
    for script in known:
        if script.name in applied and applied[script.name] != script.checksum:
            raise MigrationError(f"{script.name} was changed after it was applied; write a new one instead")
        if script.name not in applied and script.name < newest:
            raise MigrationError(f"{script.name} comes before {newest}, which is already applied")
    return [script for script in known if script.name not in applied]


async def _apply(connection: AsyncConnection, schema: str, script: _Script) -> None:
    target = sql.Identifier(schema)
    try:
        async with connection.transaction():
            await connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(target))
            await connection.execute(script.content)
            await connection.execute(
                sql.SQL("INSERT INTO {}.migration (name, checksum) VALUES (%s, %s)").format(target),
                (script.name, script.checksum),
            )
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise MigrationError(f"{script.name}: {error}") from error


def _with_timeout(dsn: str, application_name: str | None = None) -> str:
    """The DSN with a limit on connecting, where it sets none."""
    parts = conninfo.conninfo_to_dict(dsn)
    parts.setdefault("connect_timeout", _CONNECT_TIMEOUT_S)
    if application_name is not None:
        parts.setdefault("application_name", application_name)
    return conninfo.make_conninfo("", **parts)


@contextmanager
def _clear_errors(dsn: str) -> Iterator[None]:
    """Turns what libpq and PostgreSQL say into DatabaseUnavailableError."""
    try:
        conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:
        # libpq quotes the faulty part, which may be the password: neither text nor cause is passed on.
        raise DatabaseUnavailableError("the PostgreSQL DSN is not a valid connection string") from None
    try:
        yield
    except psycopg.Error as error:
        raise DatabaseUnavailableError(f"PostgreSQL at {_place(dsn)}: {error}") from error


def _place(dsn: str) -> str:
    parts = conninfo.conninfo_to_dict(dsn)
    shown = (f"{key}={parts[key]}" for key in ("host", "port", "dbname", "user") if parts.get(key))
    return " ".join(shown) or "libpq's defaults"
