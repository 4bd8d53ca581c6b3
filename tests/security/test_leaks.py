"""What must stay inside: secrets and prompts in logs, errors, metrics, environments, arguments, files, tables."""

from __future__ import annotations

import os
import stat
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import psycopg
import pytest
from psycopg import sql

from tests.harness.reply import post
from tests.harness.running_weir import wait_for
from tests.harness.stronghold import PROVIDER_SECRET, Stronghold
from tests.security.callers import BAD, ROUTES
from weirctl.postgres_prepare import SUPERUSER
from weirctl.postgres_server import DATABASE

pytestmark = pytest.mark.xdist_group("security")
PROMPT = f"prompt-{uuid4().hex}"


@pytest.fixture(scope="module")
def secrets(stronghold: Stronghold) -> dict[str, str]:
    """By name, after every one of them was used: in good requests, in refused ones, and in commands."""
    made = stronghold.create_key()
    wait_for("the key", lambda: ROUTES["models"].ask(stronghold, f"Bearer {made}").status == 200)
    token = stronghold.jwt()
    for credential in (made, token, stronghold.weir.key):
        reply = post(stronghold.weir.edge, credential, {"messages": [{"role": "user", "content": PROMPT}]})
        assert reply.status == 200
        post(
            stronghold.weir.edge,
            credential,
            {"model": "gone", "messages": [{"role": "user", "content": PROMPT}]},
        )
        post(stronghold.weir.edge, credential, {"messages": PROMPT})
    for make in BAD.values():
        ROUTES["chat"].ask(stronghold, make(stronghold))
    rotated = stronghold.administer("keys", "rotate", "--overlap", "1h", made.split("_")[1])
    stronghold.revoke(made)
    admin = (stronghold.weir.home / "admin-key").read_text(encoding="ascii").strip()
    return {
        "made key": _secret(made),
        "rotated key": _secret(rotated.strip()),
        "demo key": _secret(stronghold.weir.key),
        "admin key": _secret(admin),
        "token": token.rpartition(".")[2],
        "provider's": PROVIDER_SECRET,
        "prompt": PROMPT,
    }


def _secret(token: str) -> str:
    return token.rpartition("_")[2]


def _found(secrets: dict[str, str], text: str) -> set[str]:
    return {name for name, secret in secrets.items() if secret in text}


def test_logs(stronghold: Stronghold, secrets: dict[str, str]) -> None:
    """No part's log has one, nor what `weir up` prints but the demo key, which it shows once by design."""
    for log in (stronghold.weir.home / "log").glob("*"):
        assert _found(secrets, log.read_text(errors="replace")) == set(), log.name
    assert _found(secrets, stronghold.weir.output) == {"demo key"}


def _metrics_ports(stronghold: Stronghold) -> Iterator[int]:
    first = stronghold.weir.document["ports"]["metrics"]
    yield from (first, first + 1, first + 2, first + 10, first + 11)


def test_metrics(stronghold: Stronghold, secrets: dict[str, str]) -> None:
    """Nor any process's metrics, nor the edge's statistics; and no label names a key."""
    admin = stronghold.weir.document["ports"]["edge_admin"]
    urls = [f"http://127.0.0.1:{port}/metrics" for port in _metrics_ports(stronghold)]
    for url in (*urls, f"http://127.0.0.1:{admin}/stats", f"http://127.0.0.1:{admin}/config_dump"):
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
            text = answer.read().decode(errors="replace")
        assert _found(secrets, text) == set(), url
        assert stronghold.weir.key.split("_")[1] not in text


def test_environments_and_arguments(stronghold: Stronghold, secrets: dict[str, str]) -> None:
    """The provider's secret is in cloud_adapter's environment and no other; the rest in none; none in an argument."""
    for name, pid in stronghold.weir.pids().items():
        process = psutil.Process(pid)
        environment = "\n".join(f"{key}={value}" for key, value in process.environ().items())
        expected = {"provider's"} if name == "cloud_adapter" else set()
        assert _found(secrets, environment) == expected, name
        assert _found(secrets, "\0".join(process.cmdline())) == set(), name


def test_only_those_that_need_the_database_know_where_it_is(stronghold: Stronghold) -> None:
    """Auth and the ledger."""
    knowing = {
        name
        for name, pid in stronghold.weir.pids().items()
        if "WEIR_POSTGRES_DSN" in psutil.Process(pid).environ()
    }
    assert knowing == {"auth", "ledger"}


def test_files(stronghold: Stronghold) -> None:
    """What holds a secret is for its owner alone: keys, certificates' keys, the effective settings."""
    home = stronghold.weir.home
    files = [home / "admin-key", home / "demo-key", home / "run" / "weir.yaml", *home.glob("tls/**/*.key")]
    for file in files:
        assert stat.S_IMODE(os.stat(file).st_mode) & 0o077 == 0, file  # noqa: PTH116 - follows links as a reader would


def test_secret_files_hold_no_more_than_they_should(stronghold: Stronghold, secrets: dict[str, str]) -> None:
    """Beside the two keys' own files and the provider's log of the test, no file of the home has a secret."""
    allowed = {"admin-key": {"admin key"}, "demo-key": {"demo key"}, "up.out": {"demo key"}}
    for file in _plain_files(stronghold.weir.home):
        text = file.read_bytes().decode("latin-1")
        assert _found(secrets, text) <= allowed.get(file.name, set()), file


def _plain_files(home: Path) -> Iterator[Path]:
    for file in home.rglob("*"):
        if file.is_file() and not file.is_symlink():
            yield file


def test_tables(stronghold: Stronghold, secrets: dict[str, str]) -> None:
    """Nor any row of any table: keys are there as digests, requests as counts, refusals without what was offered."""
    dsn = psycopg.conninfo.make_conninfo(
        host=str(stronghold.weir.home.resolve() / "run" / "postgres"), user=SUPERUSER, dbname=DATABASE
    )
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('auth', 'ledger')"
        ).fetchall()
        assert ("auth", "audit") in tables
        for schema, table in tables:
            rows = connection.execute(
                sql.SQL("SELECT t::text FROM {}.{} t").format(sql.Identifier(schema), sql.Identifier(table))
            ).fetchall()
            assert _found(secrets, "\n".join(row[0] for row in rows)) == set(), (schema, table)


def test_errors_say_nothing_of_the_inside(stronghold: Stronghold) -> None:
    """A provider's failure names no address, no file, no secret and no class of ours."""
    reply = post(stronghold.weir.edge, stronghold.weir.key, {"model": "gone", "messages": []})
    for word in ("Traceback", "/services/", "127.0.0.1", "Error(", "psycopg", PROVIDER_SECRET):
        assert word not in reply.body.decode()


def test_the_audit_has_what_was_done_and_refused(stronghold: Stronghold, secrets: dict[str, str]) -> None:
    """Who, what, from where, and how it ended; a flood is a count in a row."""
    refused = wait_for("refusals in the audit", lambda: _refusals(stronghold))
    assert _found(secrets, refused) == set()
    done = stronghold.administer("audit", "--json")
    for action in ("keys.create", "keys.rotate", "keys.revoke"):
        assert action in done
    assert _found(secrets, done) == set()


def _refusals(stronghold: Stronghold) -> str | None:
    """What the audit has of refused requests, once a router has reported some."""
    text = stronghold.administer("audit", "--refused", "--json")
    return text if "weir.openai.v1.OpenAI" in text else None
