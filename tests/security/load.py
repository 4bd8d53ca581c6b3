"""Many clients that ask without pause, and when each of their questions began and how it ended."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from tests.harness.stronghold import MODEL, Stronghold
from tests.security.administration import bearer

OK = 200
BROKEN = 0
LIMIT_S = 20.0
PATH = f"/v1/models/{MODEL}"
"""What they ask for: any router worker answers it alone, and a key needs a scope and the model for it."""


@dataclass
class Load:
    """What every key was answered. Times are monotonic seconds; the status BROKEN means no answer at all."""

    edge: str
    tokens: dict[str, str]
    """By a name; may be changed while it runs."""
    asked: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    """By the same name: when the question began, and its status."""
    over: threading.Event = field(default_factory=threading.Event)

    def run(self, name: str) -> None:
        """Asks with one key until it is over."""
        connection = http.client.HTTPConnection(self.edge, timeout=LIMIT_S)
        while not self.over.is_set():
            headers = {"authorization": bearer(self.tokens[name])}
            begun_s = time.monotonic()
            try:
                connection.request("GET", PATH, headers=headers)
                answer = connection.getresponse()
                answer.read()
                self.asked[name].append((begun_s, answer.status))
            except (OSError, http.client.HTTPException):
                self.asked[name].append((begun_s, BROKEN))
                connection.close()
        connection.close()

    def failures(self, name: str) -> list[int]:
        """Every status of this key that is none of success."""
        return [status for _, status in list(self.asked[name]) if status != OK]

    def last_good_s(self, name: str) -> float:
        """When the last question began that this key was granted."""
        return max((begun_s for begun_s, status in list(self.asked[name]) if status == OK), default=0.0)

    def count(self, name: str, since_s: float = 0.0) -> int:
        """How many questions of this key began since then and were answered."""
        return sum(begun_s >= since_s for begun_s, _ in list(self.asked[name]))


@contextmanager
def under_load(stronghold: Stronghold, tokens: Mapping[str, str], threads_each: int) -> Iterator[Load]:
    """Runs it; afterwards all clients have ended."""
    load = Load(stronghold.weir.edge, dict(tokens))
    threads = [
        threading.Thread(target=load.run, args=(name,), daemon=True) for name in tokens for _ in range(threads_each)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.over.set()
        for thread in threads:
            thread.join(LIMIT_S)


def served(stronghold: Stronghold, number: int, method: str) -> float:
    """How many RPCs of a path a process has served; `number` is that of its metrics port."""
    port = stronghold.weir.document["ports"]["metrics"] + number
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "weir_rpc_served_total" and sample.labels["method"] == method
        )


AUTH, WORKERS = 0, (10, 11)
"""Numbers of metrics ports."""
