"""What Weir adds to a provider's own answer: CPU of all its processes, and time, with keys and ledger on.

    .venv/bin/python -m bench.overhead [--topology separate|compact] [--transport mtls|uds|loopback] [--rounds 5]
                                       [--requests 400] [--json FILE]

Starts an instant provider and a whole Weir on loopback (no Triton: the plan is the cloud alone), asks both in
interleaved rounds, and prints a table with the median and the range over the rounds. The provider's and the client's
CPU are not counted. Everything it started is stopped at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from bench.load import KEY_VARIABLE
from bench.processes import cpu_s, descendants, pss_mib
from tests.fakes.ports import free_ports, free_run
from tests.harness.running_weir import running_provider

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "Summarise this for a colleague. " * 32  # about 1 KB
US = 1e6
MS = 1e3


@dataclass(frozen=True)
class Case:
    """One kind of request."""

    name: str
    behaviour: str
    stream: bool
    connections: int
    share: float
    """Of the requests of a round: slow kinds get fewer."""


CASES = (
    Case("unary", "instant", stream=False, connections=1, share=1),
    Case("unary", "instant", stream=False, connections=16, share=2),
    Case("60 chunks, no gaps", "instant:chunks=60", stream=True, connections=1, share=0.5),
    Case("60 chunks, no gaps", "instant:chunks=60", stream=True, connections=16, share=1),
    Case("60 chunks, 20 ms gaps", "instant:chunks=60,gap_ms=20", stream=True, connections=16, share=0.2),
)


@dataclass(frozen=True)
class Measured:
    """One round of one case against one endpoint. Seconds."""

    cpu_s: dict[str, float]
    """By part."""
    first_s: Sequence[float]
    whole_s: Sequence[float]
    failures: Sequence[str]
    took_s: float

    def percentile_ms(self, share: float, *, first: bool = False) -> float:
        """A percentile of the whole answer's or the first event's time."""
        ordered = sorted(self.first_s if first else self.whole_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * MS


@dataclass(frozen=True)
class Mesh:
    """A running Weir."""

    pid: int
    url: str
    key: str
    ready_s: float
    home: Path

    def parts(self) -> dict[str, int]:
        """The process of each part; the supervisor's own under its name."""
        state = json.loads((self.home / "state.json").read_text(encoding="utf-8"))
        return {part["name"]: part["pid"] for part in state["parts"] if part["pid"]}

    def idle_percent(self, seconds: float = 5.0) -> float:
        """CPU of all parts together while nobody asks, in percent of one core."""
        before = cpu_by_part(self.parts())
        time.sleep(seconds)
        after = cpu_by_part(self.parts())
        return sum(after[name] - before[name] for name in before) / seconds * 100


@contextlib.contextmanager
def weir(base_url: str, topology: str, workers: int, transport: str) -> Iterator[Mesh]:
    """A whole Weir in a folder of its own, with a cloud target for each kind of request."""
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        names = ("edge", "edge_admin", "auth", "cloud_adapter", "ledger")
        runs = {"router": free_run(workers), "metrics": free_run(10 + workers)}
        ports = {**dict(zip(names, free_ports(len(names)), strict=True)), **runs}
        behaviours = dict.fromkeys(case.behaviour for case in CASES)
        targets = {
            f"case{index}": {"kind": "cloud", "provider": "bench", "model": behaviour}
            for index, behaviour in enumerate(behaviours)
        }
        document = {
            "topology": topology,
            "transport": transport,
            "workers": workers,
            "ports": ports,
            "providers": {"bench": {"base_url": base_url, "sandbox": True}},
            "targets": targets,
            "default_model": "case0",
        }
        config = home / "weir.yaml"
        config.write_text(yaml.safe_dump(document), encoding="utf-8")
        begun = time.perf_counter()
        environment = {**os.environ, "WEIR_HOME": str(home / "state")}
        command = [sys.executable, "-m", "weirctl", "up", "--config", str(config)]
        log = (home / "up.log").open("w+")
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            key = _await_key(process, home)
            ready_s = time.perf_counter() - begun
            yield Mesh(process.pid, f"http://127.0.0.1:{ports['edge']}/v1", key, ready_s, home / "state")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            log.close()


def _await_key(process: subprocess.Popen[bytes], home: Path) -> str:
    """Waits until Weir says that it is up. Returns the demo key."""
    while "curl " not in (log := (home / "up.log").read_text(encoding="utf-8")):
        if process.poll() is not None:
            raise SystemExit(f"weir up failed:\n{log}")
        time.sleep(0.05)  # the only sign is a line in its output
    return (home / "state" / "demo-key").read_text(encoding="utf-8").strip()


def cpu_by_part(parts: Mapping[str, int]) -> dict[str, float]:
    """Seconds of CPU of each part with everything it started."""
    return {name: sum(map(cpu_s, descendants(pid))) for name, pid in parts.items()}


def ask(url: str, key: str, case: Case, model: str, requests: int, parts: Mapping[str, int]) -> Measured:
    """One round."""
    messages = [{"role": "user", "content": PROMPT}]
    body = json.dumps({"model": model, "messages": messages, "stream": case.stream})
    before = cpu_by_part(parts)
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", f"{url}/chat/completions", "--requests", str(requests),
         "--connections", str(case.connections)],
        cwd=ROOT, env={**os.environ, KEY_VARIABLE: key}, input=body, capture_output=True, text=True, check=True,
    )  # fmt: skip
    # The ledger works a little longer than the client waits; its part belongs to the round.
    time.sleep(0.3)
    result: dict[str, Any] = json.loads(done.stdout)
    after = cpu_by_part(parts)
    return Measured({name: after[name] - before[name] for name in parts}, **result)


def compare(mesh: Mesh, direct: str, case: Case, rounds: int, requests: int) -> dict[str, Any]:
    """Interleaved rounds of one case, summed up as (median, least, most)."""
    behaviours = list(dict.fromkeys(case_.behaviour for case_ in CASES))
    model = f"case{behaviours.index(case.behaviour)}"
    parts = mesh.parts()
    ask(mesh.url, mesh.key, case, model, max(20, requests // 5), {})  # warms every process
    pairs = [
        (
            ask(direct, "", case, case.behaviour, requests, {}),
            ask(mesh.url, mesh.key, case, model, requests, parts),
        )
        for _ in range(rounds)
    ]
    failures = sum(len(ours.failures) for _, ours in pairs)

    def spread(values: Sequence[float]) -> dict[str, float]:
        return {"median": statistics.median(values), "least": min(values), "most": max(values)}

    return {
        "case": case.name,
        "connections": case.connections,
        "requests": rounds * requests,
        "failures": failures,
        "cpu_us": spread([sum(ours.cpu_s.values()) / requests * US for _, ours in pairs]),
        "cpu_us_by_part": {
            name: statistics.median([ours.cpu_s[name] / requests * US for _, ours in pairs]) for name in parts
        },
        "requests_per_s": spread([requests / ours.took_s for _, ours in pairs]),
        "direct_p50_ms": spread([theirs.percentile_ms(0.5) for theirs, _ in pairs]),
        "added_p50_ms": spread([ours.percentile_ms(0.5) - theirs.percentile_ms(0.5) for theirs, ours in pairs]),
        "added_p99_ms": spread([ours.percentile_ms(0.99) - theirs.percentile_ms(0.99) for theirs, ours in pairs]),
        "added_first_ms": spread([
            ours.percentile_ms(0.5, first=True) - theirs.percentile_ms(0.5, first=True) for theirs, ours in pairs
        ]),
    }  # fmt: skip


def noise_percent() -> float:
    """How much a fixed piece of work varies on this machine now: range over median, of ten runs."""

    def work() -> float:
        begun = time.perf_counter()
        sum(number * number for number in range(1_000_000))
        return time.perf_counter() - begun

    times = [work() for _ in range(10)]
    return (max(times) - min(times)) / statistics.median(times) * 100


def memory(mesh: Mesh) -> dict[str, float]:
    """PSS of each part, in MiB."""
    sizes = {name: sum(map(pss_mib, descendants(pid))) for name, pid in mesh.parts().items()}
    return {"supervisor": pss_mib(mesh.pid), **sizes}


def report(document: dict[str, Any]) -> None:
    """Prints the tables."""
    machine = document["machine"]
    how = f"topology {document['topology']}, transport {document['transport']}"
    print(f"\nWeir, {how}, {document['workers']} worker(s), keys and ledger on")
    print(
        f"{machine['cores']} cores, {machine['system']}, noise of a fixed loop {machine['noise_percent']:.0f} %"
    )
    print(
        f"ready after {document['ready_s']:.1f} s; idle, all parts use {document['idle_percent']:.1f} % of a core\n"
    )
    columns = ("cpu_us", "requests_per_s", "direct_p50_ms", "added_p50_ms", "added_p99_ms", "added_first_ms")
    print(f"{'request':24}{'conns':>6}" + "".join(f"{name:>26}" for name in columns) + f"{'failures':>10}")
    for row in document["cases"]:
        cells = [
            "{} ({}-{})".format(*(_shown(row[name][key]) for key in ("median", "least", "most")))
            for name in columns
        ]
        line = f"{row['case']:24}{row['connections']:>6}" + "".join(f"{cell:>26}" for cell in cells)
        print(f"{line}{row['failures']:>10}")
    print("\nCPU us a request by part, median:")
    for row in document["cases"]:
        shares = ", ".join(f"{name} {us:.0f}" for name, us in row["cpu_us_by_part"].items())
        print(f"  {row['case']}, {row['connections']}: {shares}")
    print("\nPSS, MiB: " + ", ".join(f"{name} {size:.0f}" for name, size in document["pss_mib"].items()))


def _shown(value: float) -> str:
    """Four digits, and never with an exponent."""
    return f"{value:.4g}" if abs(value) < 1_000 else f"{value:.0f}"


def main() -> None:
    """Runs every case and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", choices=("separate", "compact"), default="separate")
    parser.add_argument("--transport", choices=("mtls", "uds", "loopback"), default="mtls")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--requests", type=int, default=400, help="of a unary case at one connection, each round"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    topology: Literal["separate", "compact"] = arguments.topology
    transport: Literal["mtls", "uds", "loopback"] = arguments.transport
    with (
        running_provider() as provider,
        weir(provider.base_url, topology, arguments.workers, transport) as mesh,
    ):
        idle_percent = mesh.idle_percent()
        cases = [
            compare(mesh, provider.base_url, case, arguments.rounds, int(arguments.requests * case.share))
            for case in CASES
        ]
        document = {
            "topology": topology,
            "transport": transport,
            "workers": arguments.workers,
            "ready_s": mesh.ready_s,
            "idle_percent": idle_percent,
            "machine": {
                "cores": os.cpu_count(),
                "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
                "noise_percent": noise_percent(),
            },
            "cases": cases,
            "pss_mib": memory(mesh),
        }
    report(document)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
