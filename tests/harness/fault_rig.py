"""A Weir in which every fault can be had for the asking, and the evidence: provider's log, ledger's rows, metrics."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.provider import FakeProvider
from tests.harness.fault_plans import SECRET, configuration
from tests.harness.reply import MESSAGES, Reply, post
from tests.harness.running_weir import Provider, RunningWeir, running_provider, wait_for
from tests.harness.unreachable import NO_SUCH_NAME, hanging_url, untrusted_provider

ROUTER_METRICS = 10
"""The router's metrics port is so much above the first."""


@dataclass
class Rig:
    """What a fault test holds."""

    weir: RunningWeir
    provider: Provider
    untrusted: FakeProvider

    def ask(
        self, plan: str, *, stream: bool, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Reply:
        """One question to a plan of fault_plans.PLANS; a stream is asked for its usage."""
        model = f"{plan}.{'stream' if stream else 'unary'}"
        return self.post(model, stream=stream, headers=headers, **fields)

    def post(
        self, model: str, *, stream: bool, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Reply:
        """One question to any model."""
        asked = {"model": model, "messages": MESSAGES, "stream": stream, **fields}
        if stream:
            asked.setdefault("stream_options", {"include_usage": True})
        return post(self.weir.edge, self.weir.key, asked, headers)

    def start(self) -> None:
        """After a stop: returns when all of it is up."""
        self.weir.start()
        if "local" in self.weir.document["targets"]:
            self.weir.await_local()

    def asked(self, request_id: str) -> list[dict[str, Any]]:
        """What the provider was asked for a request, in order."""
        return [seen for seen in self.provider.log() if seen["request_id"] == request_id]

    def rows(self, request_id: str, count: int) -> list[dict[str, Any]]:
        """The ledger's rows of a request, once there are `count`. Raises AssertionError if there are others."""

        def look() -> list[dict[str, Any]] | None:
            found = self.weir.entries(request_id)
            return found if len(found) >= count else None

        found = wait_for(f"{count} rows of {request_id}", look, 10)
        assert len(found) == count, [(row["attempt"], row["target_name"], row["outcome"]) for row in found]
        return found

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the router's samples of that name that carry these labels."""
        port = self.weir.document["ports"]["metrics"] + ROUTER_METRICS
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def log_of(self, part: str) -> str:
        """What a part wrote to its log; a part that runs inside the router writes to the router's."""
        path = self.weir.home / "log" / f"{part}.log"
        return (path if path.exists() else path.with_name("router-0.log")).read_text(errors="replace")


def gaps_s(asked: list[dict[str, Any]]) -> list[float]:
    """Seconds between the beginnings of attempts."""
    begun = [seen["begun_ms"] / 1_000 for seen in asked]
    return [round(later - earlier, 2) for earlier, later in itertools.pairwise(begun)]


@contextmanager
def running_rig(topology: str) -> Iterator[Rig]:
    """Starts all of it: with our own model where each service has a process, without it where it is compact."""
    triton = topology == "separate"
    home = Path(tempfile.mkdtemp(prefix="weir-faults-"))
    home.chmod(0o711)
    with ExitStack() as running:
        provider = running.enter_context(running_provider())
        untrusted = running.enter_context(untrusted_provider())
        urls = {
            "fake": provider.base_url,
            "untrusted": untrusted.base_url,
            "nameless": NO_SUCH_NAME,
            "hanging": running.enter_context(hanging_url()),
        }
        weir = RunningWeir(
            home, configuration(urls, topology, triton=triton), environment={"FAKE_API_KEY": SECRET}
        )
        try:
            rig = Rig(weir, provider, untrusted)
            rig.start()
            yield rig
        finally:
            if weir.process is not None:
                weir.stop()
    shutil.rmtree(home)
