"""`weir doctor` as a whole, without a mesh."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from gen.weir.auth.v1 import CreateKeyRequest, ListKeysRequest
from gen.weir.auth.v1.service import AuthClient
from meshkit.inprocess import InProcessTransport
from meshkit.settings import HOME_VARIABLE
from meshkit.telemetry import Logger
from tests.fakes.admin_auth import ADMIN, AdminAuth
from tests.fakes.ports import free_ports, free_run
from weirctl import admin_key, doctor_sampling
from weirctl.__main__ import main

Said = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home where nothing runs, and a working directory without a weir.yaml."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.delenv(admin_key.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def config(tmp_path: Path) -> dict[str, int]:
    """A weir.yaml whose ports are free."""
    names = (
        "edge", "edge_admin", "router", "auth", "cloud_adapter", "ledger", "triton_http", "triton_grpc",
        "triton_metrics",
    )  # fmt: skip
    ports = {**dict(zip(names, free_ports(len(names)), strict=True)), "metrics": free_run(11)}
    lines = "".join(f"  {name}: {port}\n" for name, port in ports.items())
    (tmp_path / "weir.yaml").write_text(f"transport: uds\nports:\n{lines}")
    return ports


def found(said: Said) -> dict[str, list[str]]:
    """The levels by what was looked at."""
    levels: dict[str, list[str]] = {}
    for finding in json.loads(said.readouterr().out):
        levels.setdefault(finding["what"], []).append(finding["level"])
    return levels


def test_a_healthy_home(home: Path, config: dict[str, int], capsys: Said) -> None:
    """Exit status 0; every look is named, with nothing said of what only a running mesh knows."""
    (home / "admin-key").touch(mode=0o600)
    assert main(["doctor", "--json"]) == 0
    levels = found(capsys)
    assert set(levels) == {
        "settings", "python", "packages", "transport", "edge", "edge log", "ports", "envoy", "postgresql",
        "triton", "key files", "clocks",
    }  # fmt: skip
    assert not any("fault" in each for each in levels.values())
    assert levels["key files"] == ["ok"]


def test_faults_are_lines_and_the_exit_status(home: Path, config: dict[str, int], capsys: Said) -> None:
    """A key file that others read, and a port that somebody holds: both are named, and how to mend them."""
    (home / "demo-key").touch()
    (home / "demo-key").chmod(0o644)
    with socket.create_server(("127.0.0.1", config["edge"])):
        assert main(["doctor"]) == 1
    faults = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fault")]
    assert len(faults) == 2
    assert f"port {config['edge']} for the edge" in faults[0]
    assert "ports.edge" in faults[0]
    assert "chmod 600" in faults[1]


def test_every_fault_of_the_settings(home: Path, tmp_path: Path, capsys: Said) -> None:
    """All at once; what does not hang on the settings is looked at all the same."""
    (tmp_path / "other.yaml").write_text("workers: 0\ncolour: blue\n")
    assert main(["doctor", "--config", "other.yaml", "--json"]) == 1
    levels = found(capsys)
    assert levels["settings"] == ["fault", "fault"]
    assert {"python", "packages"} <= set(levels)
    assert "ports" not in levels


def test_a_file_that_is_not_there(home: Path, capsys: Said) -> None:
    """A fault, no trace."""
    assert main(["doctor", "--config", "none.yaml"]) == 1
    assert "fault    settings: none.yaml" in capsys.readouterr().out


async def test_sampled_keys_of_all_pages() -> None:
    """The others are not kept in memory."""
    auth = AdminAuth()
    auth.largest_page = 3
    admin = (("authorization", f"Bearer {ADMIN.text}"),)
    transport = InProcessTransport(auth, Logger("test"))
    for number in range(8):
        request = CreateKeyRequest(org="acme", team=f"team-{number}")
        await AuthClient(transport).create_key(request, metadata=admin)
    chosen = list(auth.keys)[::3]
    for key_id in chosen:
        auth.keys[key_id].sampling = 0.5
    sampled = await doctor_sampling.sampled_keys(transport, admin)
    assert sorted(key.id for key in sampled) == sorted(chosen)
    assert sum(isinstance(request, ListKeysRequest) for request in auth.requests) == 3
