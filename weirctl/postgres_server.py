"""How the embedded PostgreSQL is started, reached and known to be ready.

It listens on a Unix socket alone, in a folder of mode 0700, and believes only what the kernel says of the peer: no
port, no password. It is durable (fsync, synchronous_commit) and small.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from weirctl.postgres_prepare import (
    SUPERUSER,
    PostgresFiles,
    PostgresSetUpFailed,
    clear_stale,
    environment,
    prepare,
    remove_sockets,
)

__all__ = [
    "Command",
    "PostgresFiles",
    "PostgresNotReady",
    "PostgresSetUpFailed",
    "clear_stale",
    "command",
    "dsn",
    "prepare",
    "remove_sockets",
    "wait_ready",
]

DATABASE = "weir"
_MAINTENANCE_DATABASE = "postgres"
_POLL_S = 0.05
_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "64",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "32MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # The workers of the default would be three processes more, for reads that are already in memory.
    "io_method": "sync",
    "jit": "off",
    # Within the data folder, so that a hard exit leaves nothing in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] ",
    "cluster_name": "weir",
}


class PostgresNotReady(Exception):
    """The server did not accept connections in time; the text is its last answer."""


@dataclass(frozen=True)
class Command:
    """What to start: a direct child, no shell. `environment` is complete: nothing is inherited."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    directory: Path
    uid: int | None
    """Whom to run as; None means as the supervisor."""
    gid: int | None


def command(files: PostgresFiles) -> Command:
    """How to start the server that `prepare` has set up. SIGINT ends it cleanly without waiting for its clients."""
    options = {**_OPTIONS, "unix_socket_directories": str(files.sockets)}
    argv = [str(files.programs / "postgres"), "-D", str(files.data)]
    for name, value in options.items():
        argv += ["-c", f"{name}={value}"]
    uid, gid = (files.account.pw_uid, files.account.pw_gid) if files.account else (None, None)
    return Command(tuple(argv), environment(), files.data, uid, gid)


def dsn(files: PostgresFiles, database: str = DATABASE) -> str:
    """The libpq connection string. It holds no secret."""
    return psycopg.conninfo.make_conninfo(host=str(files.sockets), user=SUPERUSER, dbname=database)


def wait_ready(files: PostgresFiles, *, timeout_s: float) -> None:
    """Returns when the server answers and its database exists. Blocking. Raises PostgresNotReady."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return _ensure_database(files)
        except psycopg.Error as error:
            if time.monotonic() > deadline:
                raise PostgresNotReady(f"PostgreSQL is not ready after {timeout_s:g} s: {error}") from error
        time.sleep(_POLL_S)


def _ensure_database(files: PostgresFiles) -> None:
    try:
        psycopg.connect(dsn(files), connect_timeout=5).close()
    except psycopg.OperationalError as error:
        if f'database "{DATABASE}" does not exist' not in str(error):
            raise
        with psycopg.connect(
            dsn(files, _MAINTENANCE_DATABASE), autocommit=True, connect_timeout=5
        ) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
