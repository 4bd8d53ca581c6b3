"""A whole Weir as its user starts it: `weir up` in a home of its own on free ports, and a provider of one's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, LiteralString, TypeVar

import grpc
import psycopg
import yaml

from gen.weir.ledger.v1 import Outcome
from meshkit.channel import open_channel
from meshkit.identity import Peers
from meshkit.settings import ServiceName
from tests.fakes.ports import free_ports, free_run
from weirctl.config import running
from weirctl.postgres_prepare import SUPERUSER
from weirctl.postgres_server import DATABASE

ROOT = Path(__file__).resolve().parents[2]
PORT_NAMES = (
    "edge", "edge_admin", "auth", "cloud_adapter", "ledger", "triton_http", "triton_grpc", "triton_metrics",
    "sandbox_cloud",
)  # fmt: skip
READY_S = 90
POLL_S = 0.05
ENOUGH_ASKS = 12
"""So many connections in a row reach every worker; each finds out for itself when Triton is up."""
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], limit_s: float = 20.0) -> T:
    """What `look` returns once it is neither None nor False. Raises AssertionError naming `what` after `limit_s`."""
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends:
        found = look()
        if found is not None and found is not False:
            return found
        time.sleep(POLL_S)  # the condition is another process's; looking is the only way
    raise AssertionError(f"waited {limit_s:g} s in vain for {what}")


def weir_command(
    home: Path, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """A `weir` command for `home`, run to its end."""
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "weirctl", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment, "WEIR_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def free_configuration(**document: Any) -> dict[str, Any]:
    """`document` with ports that are free; workers and metrics get runs of neighbouring ones."""
    names = dict(zip(PORT_NAMES, free_ports(len(PORT_NAMES)), strict=True))
    workers = int(document.get("workers", 1))
    ports = {**names, "router": free_run(workers), "metrics": free_run(10 + workers)}
    triton = {"packages": str(shared_packages()), **document.pop("triton", {})}
    return {"ports": ports, "triton": triton, **document}


def shared_packages() -> Path:
    """The Triton venv that `make test` prepared."""
    home = Path(os.environ.get("WEIR_HOME", ROOT / ".weir"))
    return (home / "triton" / "venv").resolve()


@dataclass
class Provider:
    """The misbehaving provider (tests.fakes.provider) as a process."""

    base_url: str

    def log(self) -> list[dict[str, Any]]:
        """What it was asked."""
        requests: list[dict[str, Any]] = self._document()["requests"]
        return requests

    def monotonic_s(self, at_ms: float) -> float:
        """A time of its log, which counts from its start, on this machine's monotonic clock; a little too late."""
        since_ms = float(self._document()["now_ms"]) - at_ms
        return time.monotonic() - since_ms / 1_000

    def _document(self) -> dict[str, Any]:
        url = self.base_url.removesuffix("/v1") + "/log"
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            document: dict[str, Any] = json.load(answer)
        return document


@contextmanager
def running_provider() -> Iterator[Provider]:
    """Starts and stops it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.provider", "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Provider(process.stdout.readline().split()[1])
    finally:
        process.terminate()
        process.wait(10)


@dataclass
class RunningWeir:
    """A `weir up` in the foreground."""

    home: Path
    document: Mapping[str, Any]
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    ready_s: float = 0.0

    @property
    def edge(self) -> str:
        """`host:port` of the edge."""
        return f"127.0.0.1:{self.document['ports']['edge']}"

    def channel(self, service: ServiceName, worker: int = 0, caller: Peers = "operator") -> grpc.aio.Channel:
        """A channel to a service's own port or socket as `caller`, whatever the transport; the test closes it."""
        settings = running(self.home)
        return open_channel(settings.address(service, worker), settings.towards(service, caller))

    @property
    def base_url(self) -> str:
        """For an OpenAI client."""
        return f"http://{self.edge}/v1"

    @property
    def key(self) -> str:
        """The demo key."""
        return (self.home / "demo-key").read_text(encoding="utf-8").strip()

    @property
    def output(self) -> str:
        """What `weir up` printed so far."""
        return (self.home / "up.out").read_text(encoding="utf-8")

    def start(self) -> None:
        """Returns when Weir says that it is up."""
        self.home.mkdir(parents=True, exist_ok=True)
        config = self.home / "test.yaml"
        config.write_text(yaml.safe_dump(dict(self.document)), encoding="utf-8")
        begun = time.monotonic()
        with (self.home / "up.out").open("wb") as out:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "weirctl", "up", "--config", str(config), *self.arguments],
                cwd=ROOT, env=self._environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_for("weir up", self._is_up, READY_S)
        self.ready_s = time.monotonic() - begun

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"weir up ended:\n{self.output}\n{self.logs()}"
        return "curl " in self.output

    def await_local(self) -> None:
        """Returns when every router worker can use the local model."""
        wait_for("local at every worker", lambda: all(self._lists_local() for _ in range(ENOUGH_ASKS)))

    def _lists_local(self) -> bool:
        url, headers = f"{self.base_url}/models", {"authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return "local" in {model["id"] for model in json.load(answer)["data"]}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another `weir` command on the same home, to its end."""
        return weir_command(self.home, *arguments, environment=self.environment)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signals `weir up` and returns its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(60)
        self.process = None
        return status

    def pids(self) -> dict[str, int]:
        """The parts' processes."""
        state = json.loads((self.home / "state.json").read_text(encoding="utf-8"))
        return {part["name"]: part["pid"] for part in state["parts"] if part["pid"]}

    def states(self) -> dict[str, str]:
        """The parts' states."""
        state = json.loads((self.home / "state.json").read_text(encoding="utf-8"))
        return {part["name"]: part["state"] for part in state["parts"]}

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signals one part; returns the process it was."""
        pid = self.pids()[part]
        os.kill(pid, number)
        return pid

    def entries(self, request_id: str) -> list[dict[str, Any]]:
        """The ledger's rows of one request, by attempt, read from PostgreSQL itself."""
        return self._query("SELECT * FROM ledger.entry WHERE request_id = %s ORDER BY attempt", request_id)

    def rows(self, prefix: str) -> list[dict[str, Any]]:
        """The ledger's rows of all requests whose id begins with `prefix`, read from PostgreSQL itself."""
        return self._query(
            "SELECT * FROM ledger.entry WHERE starts_with(request_id, %s) ORDER BY begun_at", prefix
        )

    def _query(self, query: LiteralString, value: str) -> list[dict[str, Any]]:
        dsn = psycopg.conninfo.make_conninfo(
            host=str(self.home.resolve() / "run" / "postgres"),
            user=SUPERUSER,
            dbname=DATABASE,
        )
        with psycopg.connect(dsn, row_factory=psycopg.rows.dict_row) as connection:
            rows = connection.execute(query, (value,)).fetchall()
        return [{**row, "outcome": Outcome(row["outcome"]).name.lower()} for row in rows]

    def entry(self, request_id: str) -> dict[str, Any]:
        """The one row of a request with one attempt, once it is there."""
        (row,) = wait_for(f"an entry of {request_id}", lambda: self.entries(request_id) or None)
        return row

    def logs(self) -> str:
        """The end of every part's log."""
        files = sorted((self.home / "log").glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-2_000:]}" for file in files)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment, "WEIR_HOME": str(self.home)}
