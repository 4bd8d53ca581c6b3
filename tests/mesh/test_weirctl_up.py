"""`weir up` to `weir down` as a user types them, with real parts and without Triton: the one target is a provider."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from weirctl import home_lock, processes, state_file

Weir = Callable[..., "subprocess.CompletedProcess[str]"]

_ROOT = Path(__file__).resolve().parents[2]
_PORTS = (
    "edge", "edge_admin", "auth", "cloud_adapter", "ledger", "triton_http", "triton_grpc", "triton_metrics",
    "sandbox_cloud", "router",
)  # fmt: skip
# Metrics take the ports from theirs to eleven above.
_METRICS_SPAN = 12


class _Provider(BaseHTTPRequestHandler):
    """Answers every chat with one word."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": "Hello"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        answer = {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def provider() -> Iterator[int]:
    """A provider's port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def home() -> Iterator[Path]:
    """A WEIR_HOME that PostgreSQL's user can enter; whatever still runs in it ends with the test."""
    folder = Path(tempfile.mkdtemp(prefix="weir-up-"))
    folder.chmod(0o711)
    yield folder
    if (pid := home_lock.holder(folder)) is not None:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)


@pytest.fixture
def weir(home: Path, provider: int) -> Weir:
    """Runs one `weir` command to its end. WEIR_HOME's weir.yaml has ports that were free."""
    (home / "weir.yaml").write_text(json.dumps({
        "ports": _free_ports(),
        "drain_s": 5,
        "providers": {"fake": {"base_url": f"http://127.0.0.1:{provider}/v1", "sandbox": True}},
        "targets": {"cloud": {"kind": "cloud", "provider": "fake", "model": "m"}},
    }))  # fmt: skip

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "weirctl", *arguments],
            cwd=_ROOT,
            env={"PATH": os.environ["PATH"], "WEIR_HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    return run


def _free_ports() -> dict[str, int]:
    """Ports that were free a moment ago."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in _PORTS]
    ports = {name: server.getsockname()[1] for name, server in zip(_PORTS, held, strict=True)}
    for server in held:
        server.close()
    # Below the range from which the kernel gives ports away, and another one for each test process.
    ports["metrics"] = 20_000 + os.getpid() % 500 * _METRICS_SPAN
    return ports


def _up(weir: Weir, home: Path) -> state_file.MeshState:
    done = weir("up", "--detach", "--config", str(home / "weir.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"curl http://127\.0\.0\.1:\d+/v1/chat/completions -H 'Authorization: Bearer weir_", done.stdout
    )
    state = state_file.read(home)
    assert state is not None
    return state


def _pids(state: state_file.MeshState) -> list[int]:
    return [state.pid, *(part.pid for part in state.parts if part.pid is not None)]


@pytest.mark.timeout(240)
def test_from_up_to_down(weir: Weir, home: Path) -> None:
    """Up, an answer, a second up, a key, the usage, down; the second start keeps key and usage; nothing is left."""
    state = _up(weir, home)
    assert [part.state for part in state.parts] == ["healthy"] * 6
    key = (home / "demo-key").read_text()
    assert (home / "demo-key").stat().st_mode & 0o777 == 0o600

    status = weir("status")
    assert status.returncode == 0, status.stdout
    asked = weir("ask", "Hi", "--no-stream")
    assert (asked.stdout, asked.returncode) == ("Hello\n", 0), asked.stderr
    again = weir("up", "--config", str(home / "weir.yaml"))
    assert again.returncode == 1
    assert f"process {state.pid}" in again.stdout
    created = weir("keys", "create", "--org", "acme", "--team", "red")
    assert re.fullmatch(r"weir_[a-z2-7]{12}_\w{49}\n", created.stdout)

    down = weir("down")
    assert (down.stdout, down.returncode) == ("Weir is down.\n", 0)
    assert not any(processes.alive(pid) for pid in _pids(state))
    assert sorted(path.name for path in home.iterdir()) == [
        "admin-key",
        "demo-key",
        "log",
        "postgres",
        "spool",
        "tls",
        "weir.yaml",
    ]

    _up(weir, home)
    assert (home / "demo-key").read_text() == key
    used = weir("usage").stdout
    assert re.search(r"demo/demo +\w+ +auto +cloud +ok +1 +3 +1 ", used), used
    assert weir("down").returncode == 0


@pytest.mark.timeout(240)
def test_sigkill_of_the_supervisor_leaves_no_process_and_the_next_up_works(weir: Weir, home: Path) -> None:
    """Its parts die with it, and what it left in the home is in nobody's way."""
    state = _up(weir, home)
    os.kill(state.pid, signal.SIGKILL)
    waited = threading.Event()
    for pid in _pids(state):
        for _ in range(200):
            if not processes.alive(pid):
                break
            waited.wait(0.05)
        assert not processes.alive(pid)
    assert weir("status").returncode == 1
    _up(weir, home)
    assert weir("down").returncode == 0


def test_a_failed_start_says_why_and_leaves_nothing(weir: Weir, home: Path) -> None:
    """A taken port: exit status 1, the port, its use, its holder and the key; and no process, no lock."""
    ports = json.loads((home / "weir.yaml").read_text())["ports"]
    with socket.create_server(("127.0.0.1", ports["ledger"])):
        done = weir("up", "--detach", "--config", str(home / "weir.yaml"))
    assert done.returncode == 1
    expected = f"port {ports['ledger']} for ledger is taken by "
    assert expected in done.stdout
    assert f"(process {os.getpid()})" in done.stdout
    assert "ports.ledger" in done.stdout
    assert home_lock.holder(home) is None
    assert not (home / "lock").exists()
