"""A Weir to kill parts of, under load, with a provider of its own."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.provider_exchange import words
from tests.harness.accounts import settled
from tests.harness.crowd import Crowd, Question
from tests.harness.running_weir import Provider, RunningWeir, free_configuration, running_provider

CHUNKS = 20
CLOUD_TEXT = "".join(words(CHUNKS))
# 0.8 s, so that there is always one in flight.
SLOW_STREAM = f"slow:chunks={CHUNKS},gap_ms=40"
LIMITS = {"connect_s": 1, "first_token_s": 20, "inter_token_s": 20, "total_s": 60}
QUESTIONS = (
    Question("cloud", stream=True, cloud_text=CLOUD_TEXT),
    Question("cloud", stream=True, cloud_text=CLOUD_TEXT),
    Question("cloud", cloud_text=CLOUD_TEXT),
    Question("gpt-4", cloud_text=CLOUD_TEXT),
    Question("gpt-4", stream=True, cloud_text=CLOUD_TEXT),
)
ROUTER_METRICS = 10
"""Routers' metrics begin so many ports after the first."""


@dataclass
class Doomed:
    """A Weir whose parts are killed, with a provider of its own and all that clients were told so far."""

    weir: RunningWeir
    provider: Provider
    crowds: list[Crowd] = field(default_factory=list)

    def kill(self, parts: str) -> None:
        """By SIGKILL; `stub` is the process in which Triton runs the generating model."""
        pids = {**self.weir.pids(), "stub": self.stub()}
        for part in parts.split("+"):
            os.kill(pids[part], signal.SIGKILL)

    def stub(self) -> int:
        """The living one; dead ones stay on as zombies until Triton looks after them."""
        tasks = Path(f"/proc/{self.weir.pids()['triton']}/task").glob("*/children")
        children = {int(pid) for file in tasks for pid in file.read_text().split()}
        (pid,) = (pid for pid in children if "/smollm2/" in Path(f"/proc/{pid}/cmdline").read_text())
        return pid

    def in_flight(self, routers: str) -> int:
        """Answers that these workers are giving now, by their metrics."""
        first = self.weir.document["ports"]["metrics"] + ROUTER_METRICS
        ports = [first + int(name.removeprefix("router-")) for name in routers.split("+")]
        return sum(_active(port) for port in ports)

    def is_healthy(self) -> bool:
        """All parts, as `weir up` says."""
        return set(self.weir.states().values()) == {"healthy"}

    def accounts_agree(self) -> None:
        """Over everything that was ever asked here."""
        for crowd in self.crowds:
            settled(self.weir, self.provider, crowd.told, crowd.prefix)


@contextmanager
def running_doomed(topology: str) -> Iterator[Doomed]:
    """Two router workers, and a Triton that is looked after as usual. Its end sends what the spools still hold."""
    with tempfile.TemporaryDirectory(prefix="weir-kills-") as folder, running_provider() as provider:
        home = Path(folder)
        home.chmod(0o711)
        weir = RunningWeir(home, _configuration(provider, topology), environment={"FAKE_API_KEY": "sk-fake"})
        weir.start()
        mine = Doomed(weir, provider)
        try:
            yield mine
            mine.accounts_agree()
        finally:
            status = weir.stop()
        assert status == 0, weir.output
        assert not list((home / "spool").iterdir()), "entries that nobody sent"


def _configuration(provider: Provider, topology: str) -> dict[str, object]:
    return free_configuration(
        topology=topology,
        workers=2,
        drain_s=10,
        providers={"fake": {"base_url": provider.base_url, "api_key_env": "FAKE_API_KEY"}},
        targets={
            "local": {"kind": "triton", "default_max_output_tokens": 8, "limits": LIMITS},
            "cloud": {"kind": "cloud", "provider": "fake", "model": SLOW_STREAM, "limits": LIMITS},
        },
        models={"gpt-4": {"plan": ["local", "cloud"]}},
        default_model="gpt-4",
    )


def _active(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = re.search(
        r'^weir_rpc_active\{method="/weir.openai.v1.OpenAI/ChatCompletions"\} (\d+)', text, re.MULTILINE
    )
    return int(found[1]) if found else 0
