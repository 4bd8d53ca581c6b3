"""Starts that must not happen: taken ports and wrong settings. Each says what is wrong, and leaves nothing."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import psutil
import pytest
import yaml

from tests.harness.running_weir import free_configuration, weir_command
from weirctl import home_lock

TARGETS = {"local": {"kind": "triton"}}
FAULTS = """
ports: {edge: 99999, router: x}
workers: 0
colour: blue
transport: pigeon
targets:
  local: {kind: triton, limits: {first_token_s: -1}}
  cloud: {kind: cloud, provider: nobody, model: m, typo: 1}
models:
  gpt-4: {plan: []}
postgres_dsn: ${NOT_SET_ANYWHERE}
"""
EXPECTED = (
    "ports.edge", "ports.router", "workers", "colour", "transport", "targets.local.limits.first_token_s",
    "targets.cloud.provider", "targets.cloud.typo", "models.gpt-4.plan", "postgres_dsn",
)  # fmt: skip


def up(home: Path, text: str) -> subprocess.CompletedProcess[str]:
    """`weir up` with these settings, to its end."""
    config = home / "test.yaml"
    config.write_text(text, encoding="utf-8")
    return weir_command(home, "up", "--config", str(config))


def nothing_runs(home: Path) -> bool:
    """No lock, no run folder, and no process that knows this home."""
    of_home = [
        process.pid for process in psutil.process_iter(["cmdline"])
        if process.pid != os.getpid() and str(home) in " ".join(process.info["cmdline"] or ())
    ]  # fmt: skip
    return (
        home_lock.holder(home) is None
        and not of_home
        and not (home / "run").exists()
        and not (home / "state.json").exists()
    )


@pytest.mark.parametrize(
    ("key", "offset", "use"),
    [
        ("edge", 0, "the edge (HTTP and gRPC for clients)"),
        ("edge_admin", 0, "the edge's admin interface"),
        ("router", 1, "router worker 1"),
        ("auth", 0, "auth"),
        ("ledger", 0, "ledger"),
        ("triton_grpc", 0, "Triton (gRPC)"),
        ("metrics", 0, "the metrics of auth"),
    ],
)  # fmt: skip
def test_taken_port(tmp_path: Path, key: str, offset: int, use: str) -> None:
    """Which port, for what, taken by whom, and what to change; the status is 1."""
    document = free_configuration(workers=2, targets=TARGETS)
    port = document["ports"][key] + offset
    with socket.create_server(("127.0.0.1", port)):
        done = up(tmp_path, yaml.safe_dump(document))
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if str(port) in line]
    assert line.startswith(f"port {port} for {use} is taken by ")
    assert f"(process {os.getpid()})" in line
    assert line.endswith(f"set ports.{key} in weir.yaml")
    assert nothing_runs(tmp_path)


def test_every_fault_of_the_settings_on_its_own_line(tmp_path: Path) -> None:
    """One look at the output is enough to mend the whole file; the status is 2."""
    done = up(tmp_path, FAULTS)
    assert done.returncode == 2
    prefix = f"{tmp_path / 'test.yaml'}:"
    lines = done.stdout.splitlines()
    assert all(line.startswith(prefix) for line in lines)
    found = {line.removeprefix(prefix).split(": ")[1]: line for line in lines}
    assert set(found) == set(EXPECTED)
    assert len(lines) == len(EXPECTED), lines
    assert found["targets.local.limits.first_token_s"].startswith(f"{prefix}7:49: ")
    assert "${NOT_SET_ANYWHERE}" in found["postgres_dsn"]
    assert nothing_runs(tmp_path)


@pytest.mark.parametrize(
    "text", ["[", "- a list", "workers: 1\nworkers: 2\n"], ids=["not_yaml", "a_list", "key_twice"]
)
def test_a_file_that_is_no_settings(tmp_path: Path, text: str) -> None:
    """One line that says so; the status is 2."""
    done = up(tmp_path, text)
    assert done.returncode == 2, done.stdout
    assert done.stdout.count("\n") == 1
    assert nothing_runs(tmp_path)


def test_a_missing_file(tmp_path: Path) -> None:
    """It is named; the status is 2."""
    done = weir_command(tmp_path, "up", "--config", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "none.yaml: No such file" in done.stdout
