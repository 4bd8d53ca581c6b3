"""The ledger as a process of its own: how it starts, and how it says that it cannot."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

LIMIT_S = 60


@contextmanager
def _started(folder: Path, config: str, dsn: str | None) -> Iterator["subprocess.Popen[str]"]:
    """The ledger's process; killed at the end if it still runs."""
    path = folder / "weir.yaml"
    # A process of its own, with nobody to make it a certificate.
    path.write_text(f"transport: uds\n{config}", encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WEIR_")}
    environment |= {"WEIR_CONFIG": str(path), "WEIR_HOME": str(folder)}
    if dsn is not None:
        environment["WEIR_POSTGRES_DSN"] = dsn
    with subprocess.Popen(
        [sys.executable, "-m", "services.ledger"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("config", "dsn", "status", "said"),
    [
        ("ledger: {poolsize: 3}", "dbname=x", 2, "ledger.poolsize: unknown key"),
        ("ledger: {prices_file: /nowhere/prices.yaml}", "dbname=x", 2, "/nowhere/prices.yaml: No such file"),
        ("", None, 2, "postgres_dsn: the ledger needs it"),
        ("", "postgresql://who:s3cret@127.0.0.1:1/db", 1, "PostgreSQL at host=127.0.0.1 port=1"),
        ("", "host s3cret", 1, "not a valid connection string"),
    ],
)
def test_a_ledger_that_cannot_start_says_why(
    tmp_path: Path, config: str, dsn: str | None, status: int, said: str
) -> None:
    """One clear line on stderr, no traceback, no password; 2 for settings, 1 for the database."""
    with _started(tmp_path, config, dsn) as process:
        _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == status
    assert said in stderr
    assert "Traceback" not in stderr
    assert "s3cret" not in stderr
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_ledger_serves_until_it_is_told_to_stop(
    tmp_path: Path, postgres_dsn: str, number: signal.Signals
) -> None:
    """Today and three days more have partitions when it serves; a signal ends it with status 0, nothing left open."""
    # The ledger's metrics are two ports above the first.
    config = f"ports: {{metrics: {_free_port() - 2}}}"
    with _started(tmp_path, config, postgres_dsn) as process:
        assert process.stderr is not None
        lines: list[str] = []
        while "serving" not in (line := process.stderr.readline()):
            assert line, f"ended at its start: {lines}"
            lines.append(line)
        with psycopg.connect(postgres_dsn) as connection:
            made = connection.execute(
                "SELECT count(*) FROM pg_inherits WHERE inhparent = 'ledger.entry'::regclass"
            )
            assert made.fetchone() == (4,)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert "stopped" in stderr
    with psycopg.connect(postgres_dsn) as connection:
        left = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'weir-ledger' AND datname = %s",
            (connection.info.dbname,),
        )
        assert left.fetchone() == (0,)
