"""`python -m services.auth` as the supervisor starts it."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gen.weir.auth.v1 import CreateKeyRequest, WatchKeysRequest
from gen.weir.auth.v1.service import AuthClient
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec

_PATIENCE_S = 20

Start = Callable[[str, str | None], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts auth with a configuration and a DSN, in an environment of nothing else."""
    started: list[subprocess.Popen[str]] = []

    def begin(config: str, dsn: str | None) -> "subprocess.Popen[str]":
        path = tmp_path / "weir.yaml"
        # Nobody makes certificates for a process of its own.
        path.write_text(f"transport: uds\n{config}")
        environment = {"WEIR_CONFIG": str(path), "WEIR_HOME": str(tmp_path)}
        if dsn is not None:
            environment["WEIR_POSTGRES_DSN"] = dsn
        argv = [sys.executable, "-m", "services.auth"]
        process = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True)  # noqa: S603 - our own
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_it_serves_and_ends_at_sigterm_with_a_watch_open(
    start: Start, postgres_dsn: str, tmp_path: Path
) -> None:
    """Started over an empty database it serves; SIGTERM ends it at once with status 0, though someone watches."""
    process = start(f"ports: {{metrics: {_free_port()}}}", postgres_dsn)
    async with open_channel(f"unix:{tmp_path}/run/mesh/auth-0.sock") as channel:
        events: list[str] = []
        while "serving" not in events:
            events.append(json.loads(_line(process))["event"])
        assert list(dict.fromkeys(events)) == ["migrated", "admin key made", "key set loaded", "serving"]
        client = AuthClient(ChannelTransport(channel, mesh_codec()))
        admin = (("authorization", f"Bearer {_admin_key(tmp_path)}"),)
        made = await client.create_key(CreateKeyRequest(org="acme", team="search"), metadata=admin)
        async for event in client.watch_keys(WatchKeysRequest()):
            if event.changed == made.key or (event.snapshot is not None and made.key in event.snapshot.keys):
                process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 0
    assert made.token not in rest
    assert _admin_key(tmp_path) not in rest


@pytest.mark.parametrize(
    ("config", "dsn", "said"),
    [
        (
            "auth: {heartbeat_s: 0, no_such_knob: 1}",
            "host=/nowhere",
            ["auth.heartbeat_s", "auth.no_such_knob"],
        ),
        ("", None, ["postgres_dsn"]),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    start: Start, config: str, dsn: str | None, said: list[str]
) -> None:
    """Status 2 and a line for each fault, no traceback."""
    process = start(config, dsn)
    _, text = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 2
    lines = text.splitlines()
    assert len(lines) == len(said)
    assert all(fault in line for fault, line in zip(said, lines, strict=True))


def test_without_postgres_it_says_so_and_ends(start: Start) -> None:
    """Status 1, and one line that names the place and not the password."""
    process = start(f"ports: {{auth: {_free_port()}}}", "host=127.0.0.1 port=1 user=weir password=hunter2")
    _, text = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 1
    line = json.loads(text)
    assert line["event"] == "cannot start"
    assert "host=127.0.0.1 port=1" in line["reason"]
    assert "hunter2" not in text


def _admin_key(home: Path) -> str:
    """Auth makes it at its first start."""
    return (home / "admin-key").read_text(encoding="ascii").strip()


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    return process.stderr.readline()
