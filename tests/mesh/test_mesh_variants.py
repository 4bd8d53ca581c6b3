"""Other ways to bring a mesh up: over Unix sockets, in the background, and with the sandbox cloud; each answers."""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
import yaml

from tests.harness.evidence import tell
from tests.harness.footprint import Footprint
from tests.harness.running_weir import Provider, RunningWeir, free_configuration
from weirctl import processes

MESSAGES: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def home() -> Iterator[Path]:
    """A WEIR_HOME with a short path, as Unix sockets need it."""
    folder = Path(tempfile.mkdtemp(prefix="weir-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def with_cloud(provider: Provider, **more: object) -> dict[str, object]:
    """Settings with a provider's model as the only target."""
    return free_configuration(
        workers=2,
        providers={"fake": {"base_url": provider.base_url, "api_key_env": "FAKE_API_KEY"}},
        targets={"cloud": {"kind": "cloud", "provider": "fake", "model": "gpt-4o-mini"}},
        **more,
    )


def test_transport_uds(home: Path, provider: Provider) -> None:
    """The services talk over sockets in the home's run folder, on no TCP port, and it answers and accounts as ever."""
    weir = RunningWeir(home, with_cloud(provider, transport="uds"), environment={"FAKE_API_KEY": "sk-fake"})
    weir.start()
    try:
        sockets = {path.name for path in (home / "run" / "mesh").glob("*.sock")}
        assert sockets == {
            "auth-0.sock",
            "cloud_adapter-0.sock",
            "ledger-0.sock",
            "router-0.sock",
            "router-1.sock",
        }
        ports = weir.document["ports"]
        listening = {
            entry.laddr.port
            for pid in weir.pids().values()
            for entry in psutil.Process(pid).net_connections("tcp")
            if entry.status == "LISTEN"
        }
        assert not listening & {
            ports["auth"],
            ports["cloud_adapter"],
            ports["ledger"],
            ports["router"],
            ports["router"] + 1,
        }
        assert {ports["edge"], ports["edge_admin"]} <= listening
        client = openai.OpenAI(base_url=weir.base_url, api_key=weir.key, max_retries=0, timeout=30)
        answer = client.chat.completions.create(
            model="cloud", messages=MESSAGES, extra_headers={"x-request-id": "uds-1"}
        )
        assert answer.choices[0].message.content
        assert weir.entry("uds-1")["outcome"] == "ok"
        created = weir.run("keys", "create", "--org", "tests", "--team", "uds")
        assert created.returncode == 0, created.stderr
        footprint = Footprint.of(weir)
    finally:
        assert weir.stop() == 0
    assert footprint.left() == []


def test_detached(home: Path, provider: Provider) -> None:
    """`weir up --detach` returns when all is healthy, `weir down` ends it; both are plain commands of any shell."""
    document = with_cloud(provider)
    config = home / "test.yaml"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    weir = RunningWeir(home, document, environment={"FAKE_API_KEY": "sk-fake"})
    up = weir.run("up", "--detach", "--config", str(config))
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        found = re.search(r"Detached as process (\d+); log: (\S+); `weir down` ends it\.", up.stdout)
        assert found
        assert f"Bearer {weir.key}" in up.stdout
        assert psutil.Process(int(found[1])).ppid() != psutil.Process().pid
        assert weir.run("status").returncode == 0
        assert weir.run("ask", "Hello?", "--model", "cloud").returncode == 0
        log = Path(found[2]).read_text(encoding="utf-8")
        assert "Weir is up" in log
        assert weir.key not in log
    finally:
        down = weir.run("down")
    assert (down.returncode, down.stdout) == (0, "Weir is down.\n")
    assert weir.run("status").returncode == 1
    assert not processes.alive(int(found[1]))


@pytest.mark.timeout(180)
def test_sandbox_cloud(home: Path) -> None:
    """Without an account: a second local model stands in for the provider, and is marked wherever it shows."""
    weir = RunningWeir(home, free_configuration(), arguments=("--sandbox-cloud",))
    weir.start()
    try:
        tell(weir.output)
        client = openai.OpenAI(base_url=weir.base_url, api_key=weir.key, max_retries=0, timeout=60)
        raw = client.chat.completions.with_raw_response.create(
            model="cloud", messages=MESSAGES, max_tokens=8, extra_headers={"x-request-id": "sandbox-1"}
        )
        answer = raw.parse()
        assert answer.choices[0].message.content
        assert answer.model_extra
        assert answer.model_extra["provider"] == "cloud"
        assert raw.headers["x-weir-target"] == "cloud (sandbox)"
        row = weir.entry("sandbox-1")
        assert (row["target_sandbox"], row["outcome"]) == (True, "ok")
        assert re.search(r"^sandbox_cloud \[sandbox\] +healthy ", weir.run("status").stdout, re.MULTILINE)
        asked = weir.run("ask", "Say hello.", "--model", "cloud")
        assert (asked.returncode, asked.stderr) == (0, "[cloud (sandbox): model cloud]\n")
        # With Triton dead, what would have been answered locally is answered by the sandbox.
        weir.kill("triton", signal.SIGKILL)
        classify: Any = [{"role": "user", "content": "Classify as positive or negative: I love it"}]
        fallen = client.chat.completions.with_raw_response.create(
            model="auto", messages=classify, max_tokens=4
        )
        assert fallen.headers["x-weir-target"] == "cloud (sandbox)"
        footprint = Footprint.of(weir)
    finally:
        assert weir.stop() == 0
    assert footprint.left() == []
