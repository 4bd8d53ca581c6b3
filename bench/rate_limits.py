"""Whether limits hold while two workers are asked for far more: every window of 60 s, as the client sees it.

    .venv/bin/python -m bench.rate_limits [--limit 600] [--factor 3] [--seconds 150] [--workers 2] [--topology separate]

Starts an instant provider and a whole Weir on loopback, makes one key with a limit of requests per minute and asks
`factor` times as often as that, evenly. Prints what was let in: in all, and in the worst window of 60 s; what answers
and refusals took; how often each router asked Auth. Then the CPU that a request with three limits costs a router, by
itself, warm. Everything it started is stopped at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

import aiohttp

from gen.weir.auth.v1 import Limits, Meter
from gen.weir.type.v1 import Principal
from meshkit.limit_settings import LimitsBlock
from services.router.domain.permissions import Caller, Permissions
from services.router.rates.subjects import Subjects
from tests.fakes.router_rates import Authority, Desk, limit
from tests.harness.running_weir import RunningWeir, free_configuration, running_provider

WINDOW_S = 60.0
US = 1e6
MS = 1e3
ROUNDS = 20_000
WARM_S = 1.0


class Asked(NamedTuple):
    """One request, in seconds of the client's monotonic clock."""

    status: int
    begun_s: float
    ended_s: float


async def ask_evenly(weir: RunningWeir, token: str, per_s: float, seconds: float) -> list[Asked]:
    """Requests at even distances, however long each of them takes."""
    url, headers = f"{weir.base_url}/chat/completions", {"authorization": f"Bearer {token}"}
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}

    async def ask(session: aiohttp.ClientSession) -> Asked:
        begun_s = time.monotonic()
        async with session.post(url, json=body, headers=headers) as answer:
            await answer.read()
            return Asked(answer.status, begun_s, time.monotonic())

    connector = aiohttp.TCPConnector(limit=200)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        begun_s = time.monotonic()
        asked = []
        for number in range(int(per_s * seconds)):
            await asyncio.sleep(begun_s + number / per_s - time.monotonic())
            asked.append(tasks.create_task(ask(session)))
    return [task.result() for task in asked]


def worst_window(times_s: list[float]) -> int:
    """The most within 60 s."""
    times_s = sorted(times_s)
    return max(
        (bisect_right(times_s, at_s + WINDOW_S) - index for index, at_s in enumerate(times_s)), default=0
    )


def measure_mesh(limit_: int, factor: float, seconds: float, workers: int, topology: str) -> None:
    """Prints what a running mesh lets in."""
    with running_provider() as provider, tempfile.TemporaryDirectory(prefix="weir-rates-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        document = free_configuration(
            topology=topology,
            workers=workers,
            providers={"bench": {"base_url": provider.base_url, "sandbox": True}},
            targets={"quick": {"kind": "cloud", "provider": "bench", "model": "instant"}},
            default_model="quick",
        )
        weir = RunningWeir(home, document)
        weir.start()
        try:
            made = weir.run(
                "keys", "create", "--org", "bench", "--team", "t", "--requests-per-minute", str(limit_)
            )
            made.check_returncode()
            per_s = factor * limit_ / WINDOW_S
            asked = asyncio.run(ask_evenly(weir, made.stdout.strip(), per_s, seconds))
        finally:
            weir.stop()
    report(asked, limit_, seconds)


def report(asked: list[Asked], limit_: int, seconds: float) -> None:
    """Prints the numbers."""
    answered = [one for one in asked if one.status == 200]
    refused = sum(one.status == 429 for one in asked)
    others = len(asked) - len(answered) - refused
    print(f"asked {len(asked)}, answered {len(answered)}, refused {refused}, other statuses {others}")
    # A request was let in at some moment between its begin and its end, so the truth lies between the two as well.
    moments = {"begins": [one.begun_s for one in answered], "ends": [one.ended_s for one in answered]}
    for name, times_s in moments.items():
        worst = worst_window(times_s)
        print(f"worst 60 s by their {name}: {worst} of {limit_} ({100 * (worst / limit_ - 1):+.2f} %)")
    most = limit_ * (1 + int(seconds / WINDOW_S))
    print(f"of the most that could be let in within the time: {100 * len(answered) / most:.1f} %")
    for name, status in (("answers", 200), ("refusals", 429)):
        took_ms = sorted((one.ended_s - one.begun_s) * MS for one in asked if one.status == status)
        if took_ms:
            print(
                f"{name}: median {statistics.median(took_ms):.1f} ms, p99 {took_ms[int(0.99 * len(took_ms))]:.1f} ms"
            )


async def measure_cpu() -> None:
    """Prints what a warm request costs a router, without gRPC and targets."""
    limits = [
        limit(10**9),
        limit(10**10, Meter.TOKENS),
        limit(10**6, Meter.CONCURRENT, name="acme"),
    ]
    authority = Authority({Meter.REQUESTS: 10**9, Meter.TOKENS: 10**10, Meter.CONCURRENT: 10**6})
    async with Desk(authority).running() as desk:
        warm_s = time.monotonic() + WARM_S
        while time.monotonic() < warm_s:
            (await desk.admission.enter(limits, 1_100)).settle(100)
            await asyncio.sleep(0)
        begun_s = time.process_time()
        for _ in range(ROUNDS):
            (await desk.admission.enter(limits, 1_100)).settle(100)
        print(f"three limits: {(time.process_time() - begun_s) / ROUNDS * US:.1f} us of CPU a request, warm")
    subjects = Subjects(LimitsBlock())
    for words, own in (("none", None), ("three", Limits(requests_per_minute=1, tokens_per_minute=1))):
        caller = Caller(Principal(key_id="k", org="acme"), Permissions(), limits=own)
        begun_s = time.process_time()
        for _ in range(ROUNDS):
            subjects.of(caller, "gpt-4")
        print(f"which limits apply, {words}: {(time.process_time() - begun_s) / ROUNDS * US:.2f} us")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=600, help="requests per minute")
    parser.add_argument("--factor", type=float, default=3.0, help="so many times as much is asked")
    parser.add_argument("--seconds", type=float, default=150.0, help="0 measures the CPU alone")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--topology", choices=("separate", "compact"), default="separate")
    arguments = parser.parse_args()
    asyncio.run(measure_cpu())
    if arguments.seconds:
        measure_mesh(
            arguments.limit, arguments.factor, arguments.seconds, arguments.workers, arguments.topology
        )


if __name__ == "__main__":
    main()
