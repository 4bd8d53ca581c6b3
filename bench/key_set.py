"""What a large key set costs: Auth's start, and the time and memory until a router has its copy.

    .venv/bin/python -m bench.key_set [--keys 100000] [--json FILE]

Starts a PostgreSQL and an Auth of its own on loopback, puts the keys into the database by COPY, and lets a process
with nothing but a router's key set follow Auth. Everything it started is stopped at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from gen.weir.auth.v1.service import AuthClient
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.postgres import migrate
from meshkit.telemetry import Logger
from meshkit.tokens import mint
from services.auth.adapters.postgres import SCHEMA, migrations
from services.router.adapters.key_set import KeySet
from tests.fakes.ports import free_ports
from weirctl import postgres_server as postgres
from weirctl.child import wrap

ROOT = Path(__file__).resolve().parents[1]
MAX_S = 3.0
MAX_MIB = 100.0
_LIMIT = timedelta(seconds=60)
_FOLLOW = "--follow"


def main() -> int:
    """Runs the measurement. Status 1 where a number of the project is missed."""
    if sys.argv[1:2] == [_FOLLOW]:
        asyncio.run(_follow(sys.argv[2]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    asked = parser.parse_args()
    found = _measure(asked.keys)
    print(json.dumps(found, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0 if found["router_load_s"] <= MAX_S and found["router_grew_mib"] <= MAX_MIB else 1


def _measure(keys: int) -> dict[str, float]:
    with ExitStack() as exits:
        home = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="weir-keys-")))
        home.chmod(0o711)
        dsn = exits.enter_context(_postgres(home))
        asyncio.run(migrate(dsn, SCHEMA, migrations()))
        _fill(dsn, keys)
        address, started_s, loaded_s, auth_mib = exits.enter_context(_auth(home, dsn))
        told = subprocess.run(
            [sys.executable, "-m", "bench.key_set", _FOLLOW, address],
            cwd=ROOT, check=True, capture_output=True, text=True, timeout=_LIMIT.total_seconds(),
        )  # fmt: skip
        router = json.loads(told.stdout)
        return {
            "keys": keys,
            "auth_start_s": round(started_s, 2),
            "auth_reads_store_s": round(loaded_s, 2),
            "auth_rss_mib": round(auth_mib),
            **router,
        }


def _fill(dsn: str, keys: int) -> None:
    now = datetime.now(UTC)
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        # One version each, given here: the trigger would take minutes.
        cursor.execute("ALTER TABLE auth.key DISABLE TRIGGER number_change")
        copy = cursor.copy(
            "COPY auth.key (id, secret_sha256, org, team, label, created_at, version) FROM STDIN"
        )
        with copy as rows:
            for number in range(1, keys + 1):
                token = mint(secrets.token_bytes)
                org, team = f"org-{number % 100}", f"team-{number % 1000}"
                rows.write_row((token.key_id, token.secret_sha256, org, team, f"key {number}", now, number))
        cursor.execute("ALTER TABLE auth.key ENABLE TRIGGER number_change")


@contextmanager
def _postgres(home: Path) -> Iterator[str]:
    files = postgres.prepare(home, lambda _: None)
    command = postgres.command(files)
    argv = wrap(command.argv, death_signal=signal.SIGINT, uid=command.uid, gid=command.gid)
    server = subprocess.Popen(
        argv, env=command.environment, cwd=command.directory, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        postgres.wait_ready(files, timeout_s=30)
        yield postgres.dsn(files)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


@contextmanager
def _auth(home: Path, dsn: str) -> Iterator[tuple[str, float, float, float]]:
    """Its address; seconds from the process's start until it serves, and of these for the key set; its memory."""
    port, metrics = free_ports(2)
    config = home / "weir.yaml"
    config.write_text(f"transport: loopback\nports: {{auth: {port}, metrics: {metrics}}}\n", encoding="utf-8")
    state = home / "state"
    environment = {"WEIR_CONFIG": str(config), "WEIR_HOME": str(state), "WEIR_POSTGRES_DSN": dsn}
    begun = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "services.auth"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        at = _moments(server)
        yield (
            f"127.0.0.1:{port}", time.perf_counter() - begun,
            (at["key set loaded"] - at["admin key made"]).total_seconds(), _rss_mib(server.pid),
        )  # fmt: skip
    finally:
        server.terminate()
        server.communicate(timeout=30)


def _moments(server: subprocess.Popen[str]) -> dict[str, datetime]:
    """When each line of the log was written, up to `serving`."""
    assert server.stderr is not None
    at: dict[str, datetime] = {}
    for line in server.stderr:
        told: dict[str, Any] = json.loads(line)
        at[told["event"]] = datetime.fromisoformat(told["at"])
        if told["event"] == "serving":
            return at
    raise RuntimeError("auth ended before it served")


async def _follow(address: str) -> None:
    """The router's part, in a process of its own."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    async with open_channel(address) as channel:
        client = AuthClient(ChannelTransport(channel, mesh_codec()))
        keys = KeySet(client, _LIMIT, _LIMIT, time.monotonic, Logger("bench", descriptor))
        before, begun = _rss_mib(os.getpid()), time.perf_counter()
        watch = asyncio.create_task(keys.watch())
        await keys.loaded()
        took_s = time.perf_counter() - begun
        await asyncio.sleep(1)
        after = _rss_mib(os.getpid())
        watch.cancel()
    print(
        json.dumps(
            {
                "router_load_s": round(took_s, 2),
                "router_grew_mib": round(after - before),
                "router_peak_mib": round(_status_mib(os.getpid(), "VmHWM") - before),
            }
        )
    )


def _rss_mib(pid: int) -> float:
    return _status_mib(pid, "VmRSS")


def _status_mib(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


if __name__ == "__main__":
    sys.exit(main())
