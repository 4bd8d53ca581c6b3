"""A changed weir.yaml reaches a running mesh: what can be taken over is, none fails, and a bad file changes nothing."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tests.harness.evidence import tell
from tests.harness.running_weir import Provider, RunningWeir, free_configuration, running_provider, wait_for
from tests.mesh.conftest import TOPOLOGIES, cloud

MESSAGES: Any = [{"role": "user", "content": "Say hello."}]
WITHIN_S = 6.0
"""Twice the second in which a file is looked at, and the three that new targets may take; and a busy machine."""
ASKERS = 3
_PAUSE_S = 0.05


@dataclass
class Editable:
    """A Weir, and what its file says now."""

    weir: RunningWeir
    document: dict[str, Any]
    file: Path

    def client(self) -> openai.OpenAI:
        """The official client, which tries once."""
        return openai.OpenAI(base_url=self.weir.base_url, api_key=self.weir.key, max_retries=0, timeout=30)

    def write(self, text: str | None = None) -> str:
        """Writes the file; returns what `weir up` said before."""
        said = self.weir.output
        self.file.write_text(yaml.safe_dump(self.document) if text is None else text, encoding="utf-8")
        return said

    def said_since(self, before: str, words: str) -> str:
        """What `weir up` said since, once `words` are in it."""
        return wait_for(
            words, lambda: new if words in (new := self.weir.output[len(before) :]) else None, WITHIN_S
        )

    def answered_by(self, model: str) -> str:
        """Which target answers a model now; empty where none does."""
        try:
            raw = self.client().chat.completions.with_raw_response.create(model=model, messages=MESSAGES)
        except openai.APIStatusError:
            return ""
        return str(raw.headers["x-weir-target"])

    def metric(self, name: str) -> list[float]:
        """A metric of every router worker."""
        first = self.document["ports"]["metrics"] + 10
        values = []
        for port in range(first, first + self.document["workers"]):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
            values += [float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")]
        return values


@dataclass
class Asked:
    """What became of steady requests."""

    targets: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@contextmanager
def asking(editable: Editable, model: str) -> Iterator[Asked]:
    """Several clients ask one model again and again, whole answers and streams in turn."""
    asked, stop, lock = Asked(), threading.Event(), threading.Lock()

    def ask(client: openai.OpenAI) -> None:
        stream = False
        while not stop.wait(_PAUSE_S):
            stream = not stream
            try:
                raw = client.chat.completions.with_raw_response.create(
                    model=model, messages=MESSAGES, stream=stream
                )
                whole: Any = raw.parse()
                ended = not stream or list(whole)[-1].choices[0].finish_reason == "stop"
            except (openai.OpenAIError, IndexError) as error:
                with lock:
                    asked.failures.append(repr(error))
            else:
                with lock:
                    asked.targets[str(raw.headers["x-weir-target"])] += 1
                    asked.failures += [] if ended else ["an answer without an end"]

    threads = [threading.Thread(target=ask, args=(editable.client(),)) for _ in range(ASKERS)]
    for thread in threads:
        thread.start()
    try:
        wait_for("the first answers", lambda: bool(sum(asked.targets.values()) > ASKERS or asked.failures))
        yield asked
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def other_provider() -> Iterator[Provider]:
    """A second one, at another address."""
    with running_provider() as running:
        yield running


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(f"reload-{name}")) for name in TOPOLOGIES],
)
def editable(request: pytest.FixtureRequest, provider: Provider) -> Iterator[Editable]:
    """A Weir without a local model, which starts fast."""
    home = Path(tempfile.mkdtemp(prefix="weir-reload-"))
    home.chmod(0o711)
    document = free_configuration(
        topology=request.param,
        workers=2,
        drain_s=10,
        providers={"fake": {"base_url": provider.base_url, "api_key_env": "FAKE_API_KEY"}},
        targets={
            "first": cloud("gpt-4o-mini"),
            "second": cloud("gpt-4o-mini"),
            "slow": cloud("instant:chunks=40,gap_ms=200"),
        },
        models={"alias": {"plan": ["first", "second"]}},
        default_model="alias",
    )
    weir = RunningWeir(home, document, environment={"FAKE_API_KEY": "sk-fake-secret"})
    weir.start()
    try:
        yield Editable(weir, deepcopy(document), home / "test.yaml")
    finally:
        weir.stop()
        shutil.rmtree(home)


def test_a_new_model_and_another_plan(editable: Editable) -> None:
    """Under steady requests: both are served within seconds, and not one request fails."""
    editable.document["targets"]["third"] = cloud("gpt-4o")
    editable.document["models"]["alias"]["plan"] = ["third", "first"]
    editable.document["models"]["brand-new"] = {"plan": ["third"]}
    with asking(editable, "alias") as asked:
        before, begun_s = editable.write(), time.monotonic()
        said = editable.said_since(before, "settings read again: ")
        wait_for("the new plan", lambda: bool(asked.targets["third"] or asked.failures), WITHIN_S)
        took_s = time.monotonic() - begun_s
        wait_for("the new model", lambda: editable.answered_by("brand-new") == "third", WITHIN_S)
        del editable.document["targets"]["second"]
        editable.said_since(editable.write(), "targets.second")
        again = asked.targets["third"] + 40
        wait_for("more answers", lambda: bool(asked.targets["third"] > again or asked.failures), WITHIN_S)
    assert asked.failures == []
    assert set(asked.targets) == {"first", "third"}
    for name in ("targets.third", "models.alias.plan", "models.brand-new"):
        assert name in said
    assert "need" not in said
    tell(
        f"{editable.document['topology']}: {sum(asked.targets.values())} requests, new plan after {took_s:.1f} s"
    )


def test_a_provider_moves(editable: Editable, provider: Provider, other_provider: Provider) -> None:
    """The next requests go to the new address; those under way end at the old one, and none fails."""
    editable.document["providers"]["fake"]["base_url"] = other_provider.base_url
    with asking(editable, "first") as asked:
        before = editable.write()
        editable.said_since(before, "providers.fake.base_url")
        wait_for("requests at the new address", lambda: len(other_provider.log()) > 40, WITHIN_S)
        wait_for("all of them to go there", lambda: _is_quiet(provider, other_provider), WITHIN_S)
    assert asked.failures == []


def _is_quiet(former: Provider, now: Provider) -> bool:
    """Whether a run of requests reaches the one and none the other."""
    seen, more = len(former.log()), len(now.log()) + 20
    wait_for("further requests", lambda: len(now.log()) > more, WITHIN_S)
    return len(former.log()) == seen


def test_a_bad_file_changes_nothing(editable: Editable) -> None:
    """The former settings stay, the output says every fault with its line and column, and a good file heals it."""
    good = yaml.safe_dump(editable.document)
    first = editable.document["models"]["alias"]["plan"][0]
    with asking(editable, "alias") as asked:
        bad = good.replace("workers: 2", "workers: 0").replace("plan:", "plann:", 1) + "default_modl: x\n"
        said = editable.said_since(editable.write(bad), "kept the former settings")
        faults = [line for line in said.splitlines() if line.startswith(f"{editable.file}:")]
        lines = bad.splitlines()
        expected = {
            "plann": "unknown key (did you mean 'plan'?)",
            "default_modl": "unknown key",
            "workers": "",
        }
        for key, text in expected.items():
            (at,) = [number for number, line in enumerate(lines, 1) if line.strip().startswith(f"{key}:")]
            assert [fault for fault in faults if f".yaml:{at}:" in fault and text in fault], faults
        assert editable.answered_by("alias") == first
        said = editable.said_since(editable.write("targets: [\n"), "kept the former settings")
        assert f"{editable.file}:2:1: not YAML" in said
        assert editable.answered_by("alias") == first
        editable.said_since(editable.write(), "settings read again: nothing changed")
    assert asked.failures == []


def test_what_needs_a_restart_is_named(editable: Editable) -> None:
    """Ports, workers and the edge stay as they are; what can be taken over is, from the same file."""
    was = deepcopy(editable.document)
    editable.document["workers"] = 3
    editable.document["ports"]["auth"] += 1
    editable.document["edge"] = {"threads": 2}
    editable.document["models"]["taken-over"] = {"plan": ["first"]}
    said = editable.said_since(editable.write(), "these need `weir down` and `weir up`: ")
    editable.document = was
    line = next(line for line in said.splitlines() if line.startswith("these need"))
    assert sorted(line.partition("`: ")[2].split("`: ")[-1].split(", ")) == [
        "edge.threads",
        "ports.auth",
        "workers",
    ]
    wait_for("the new model", lambda: editable.answered_by("taken-over") == "first", WITHIN_S)
    killed = editable.weir.kill("router-1")
    wait_for("router-1 again", lambda: editable.weir.states()["router-1"] == "healthy"
             and editable.weir.pids()["router-1"] != killed)  # fmt: skip
    assert {editable.answered_by("taken-over") for _ in range(10)} == {"first"}
    editable.said_since(editable.write(), "models.taken-over")


def test_sighup(editable: Editable) -> None:
    """It has the file read at once, whether it changed or not, and stops nothing."""
    assert editable.weir.process is not None
    times = editable.metric("weir_settings_loaded_timestamp_seconds")
    before = editable.weir.output
    editable.weir.process.send_signal(signal.SIGHUP)
    editable.said_since(before, "settings read again: nothing changed")

    def all_later() -> bool:
        now = editable.metric("weir_settings_loaded_timestamp_seconds")
        return all(later > former for later, former in zip(now, times, strict=True))

    wait_for("every worker's reading", all_later, WITHIN_S)
    assert editable.metric("weir_settings_reload_failures_total") == [0.0, 0.0]
    assert editable.answered_by("alias") == "third"


def test_a_request_under_way_ends_where_it_began(editable: Editable) -> None:
    """Its target and provider may leave the settings meanwhile."""
    stream = editable.client().chat.completions.create(model="slow", messages=MESSAGES, stream=True)
    next(iter(stream))
    del editable.document["targets"]["slow"]
    editable.document["providers"]["fake"]["keepalive_s"] = 1
    editable.said_since(editable.write(), "targets.slow")
    wait_for("slow to be gone", lambda: editable.answered_by("slow") == "", WITHIN_S)
    assert list(stream)[-1].choices[0].finish_reason == "stop"
