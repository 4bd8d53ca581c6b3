"""The embedded PostgreSQL, as a real process."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from weirctl import postgres_server as postgres

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL runs as another user")

StartPostgres = Callable[[postgres.PostgresFiles], "subprocess.Popen[bytes]"]


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that PostgreSQL's user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="weir-pg-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def _write(files: postgres.PostgresFiles) -> None:
    with psycopg.connect(postgres.dsn(files)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")


def _read(files: postgres.PostgresFiles) -> int:
    with psycopg.connect(postgres.dsn(files)) as connection:
        row = connection.execute("SELECT answer FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def test_what_was_committed_survives_sigkill(home: Path, start_postgres: StartPostgres) -> None:
    """A server killed right after a commit starts again with it; nothing of the dead one is in the way."""
    files = postgres.prepare(home, print)
    first = start_postgres(files)
    _write(files)
    first.kill()
    first.wait()
    assert (files.data / "postmaster.pid").exists()

    again = postgres.prepare(home, print)
    assert not (files.data / "postmaster.pid").exists()
    start_postgres(again)
    assert _read(again) == 42


def test_a_reused_process_number_does_not_stop_the_start(home: Path, start_postgres: StartPostgres) -> None:
    """A dead server's number that now belongs to another program (here: this test) is no reason to refuse."""
    files = postgres.prepare(home, print)
    first = start_postgres(files)
    first.kill()
    first.wait()
    stale = files.data / "postmaster.pid"
    lines = stale.read_text().splitlines()
    stale.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    start_postgres(postgres.prepare(home, print))


def test_sigint_ends_it_cleanly_and_leaves_no_socket(home: Path, start_postgres: StartPostgres) -> None:
    """SIGINT is a fast shutdown even with a client connected; nothing of the server is left but its data."""
    files = postgres.prepare(home, print)
    server = start_postgres(files)
    with psycopg.connect(postgres.dsn(files)):
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
    assert list(files.sockets.iterdir()) == []
    assert not (files.data / "postmaster.pid").exists()
    postgres.remove_sockets(files)
    assert not files.sockets.exists()


def test_it_dies_with_its_supervisor(home: Path) -> None:
    """SIGKILL of the process that started it ends the server too, and the next start waits for that end."""
    files = postgres.prepare(home, print)
    command = postgres.command(files)
    script = (
        "import subprocess, sys, signal, ast; from weirctl.child import wrap; "
        "argv, env, uid, gid = ast.literal_eval(sys.argv[1]); "
        "subprocess.Popen(wrap(argv, death_signal=signal.SIGINT, uid=uid, gid=gid), env=env).wait()"
    )
    facts = repr((command.argv, command.environment, command.uid, command.gid))
    supervisor = subprocess.Popen(  # noqa: S603 - a script of this test
        [sys.executable, "-c", script, facts], stderr=subprocess.DEVNULL
    )
    postgres.wait_ready(files, timeout_s=30)
    supervisor.kill()
    supervisor.wait()
    postgres.clear_stale(files)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres.dsn(files))


def test_only_a_unix_socket_closed_to_others(home: Path, start_postgres: StartPostgres) -> None:
    """No TCP, no password; the folders of socket and data are their owner's alone; commits are durable."""
    files = postgres.prepare(home, print)
    start_postgres(files)
    with psycopg.connect(postgres.dsn(files)) as connection:
        for setting, expected in (("listen_addresses", ""), ("fsync", "on"), ("synchronous_commit", "on")):
            assert connection.execute(f"SHOW {setting}".encode()).fetchone() == (expected,)
        hba = connection.execute("SELECT type, auth_method FROM pg_hba_file_rules").fetchall()
    assert hba == [("local", "peer")]
    assert files.sockets.stat().st_mode & 0o777 == 0o700
    assert files.data.stat().st_mode & 0o777 == 0o700


def test_an_interrupted_set_up_starts_over(home: Path, start_postgres: StartPostgres) -> None:
    """Files of a set-up that never finished are replaced."""
    data = home / "postgres"
    (data / "new" / "base").mkdir(parents=True)
    (data / "base").mkdir()
    start_postgres(postgres.prepare(home, print))


def test_a_socket_path_that_is_too_long_moves_to_the_temp_folder(
    home: Path, start_postgres: StartPostgres
) -> None:
    """Beyond 107 bytes no socket can be bound: it goes to a short folder, and a line says so."""
    deep = home / ("d" * 60) / ("e" * 60)
    lines: list[str] = []
    files = postgres.prepare(deep, lines.append)
    start_postgres(files)
    assert files.sockets.parent == Path(tempfile.gettempdir())
    assert any(str(files.sockets) in line for line in lines)
    postgres.remove_sockets(files)


@needs_root
def test_a_home_its_user_cannot_enter(home: Path, start_postgres: StartPostgres) -> None:
    """Under a closed folder (as /root is) all goes to a shelter; the folder's mode stays as it was."""
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    programs = postgres.prepare(home / "open", print).programs
    package = programs.parents[1]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, closed / folder.name, symlinks=True)
    programs = closed / programs.relative_to(package.parent)
    lines: list[str] = []
    files = postgres.prepare(closed / "home", lines.append, programs=programs, shelter=home / "shelter")
    server = start_postgres(files)
    _write(files)
    assert closed.stat().st_mode & 0o777 == 0o700
    assert (closed / "home" / "postgres").resolve().parent == home / "shelter"
    assert len([line for line in lines if "cannot enter" in line]) == 2
    server.send_signal(signal.SIGINT)
    server.wait(30)
    again = postgres.prepare(closed / "home", lines.append, programs=programs, shelter=home / "shelter")
    assert again == files
    postgres.remove_sockets(files)
