"""Fixtures for every kind of test."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from weirctl import postgres_server as postgres
from weirctl.child import wrap

StartPostgres = Callable[[postgres.PostgresFiles], "subprocess.Popen[bytes]"]


def pytest_configure() -> None:
    """Generated examples may take their time: how long one takes says more of the machine's load than of the code."""
    settings.register_profile("weir", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("weir")


@pytest.fixture(scope="session")
def start_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPostgres]:
    """Starts a server as the supervisor does, and waits until it is ready; those that still run end with the tests."""
    running: list[subprocess.Popen[bytes]] = []
    log_path = tmp_path_factory.mktemp("postgres") / "log"

    def start(files: postgres.PostgresFiles) -> subprocess.Popen[bytes]:
        command = postgres.command(files)
        with log_path.open("ab") as log:
            server = subprocess.Popen(  # noqa: S603 - the command is our own
                wrap(command.argv, death_signal=signal.SIGINT, uid=command.uid, gid=command.gid),
                env=command.environment,
                cwd=command.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        running.append(server)
        postgres.wait_ready(files, timeout_s=30)
        return server

    yield start
    for server in running:
        server.send_signal(signal.SIGINT)
        server.wait(30)


@pytest.fixture(scope="session")
def postgres_home() -> Iterator[Path]:
    """A folder for the server's files. Its user can enter it, which pytest's own temp folders forbid."""
    home = Path(tempfile.mkdtemp(prefix="weir-pg-"))
    home.chmod(0o711)
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def postgres_server(postgres_home: Path, start_postgres: StartPostgres) -> Iterator[postgres.PostgresFiles]:
    """An embedded PostgreSQL for this pytest process, on a Unix socket in a temp folder; gone at the end."""
    files = postgres.prepare(postgres_home, print)
    server = start_postgres(files)
    yield files
    server.send_signal(signal.SIGINT)
    server.wait(30)


@pytest.fixture
def postgres_dsn(postgres_server: postgres.PostgresFiles) -> Iterator[str]:
    """The libpq connection string of a fresh, empty database; dropped afterwards."""
    name = sql.Identifier(database := f"test_{uuid4().hex}")
    with psycopg.connect(postgres.dsn(postgres_server), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        yield postgres.dsn(postgres_server, database)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
