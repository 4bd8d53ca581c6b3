"""What a flood of bad keys does to Auth and to the holder of a good one: `python -m bench.bad_keys`.

Starts a whole Weir (two router workers, an instant provider), asks with a good key, first alone and then beside a
flood of well-formed keys that nobody knows, each another, over as many connections as are asked for, each sending its
next as soon as the last was answered. Prints the flood's rate, how often Auth was asked, and the good key's times.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import time
import urllib.request
from statistics import quantiles

import uvloop
from prometheus_client.parser import text_string_to_metric_families

from meshkit.tokens import mint
from tests.harness.stronghold import Stronghold, running_stronghold

_BODY = b'{"messages":[{"role":"user","content":"hi"}]}'
_ASKED = "weir_rpc_served_total"
_AUTHENTICATE = "/weir.auth.v1.Auth/Authenticate"
_GOOD_EVERY_S = 0.02


def _request(host: str, token: str) -> bytes:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {token}\r\ncontent-length: {len(_BODY)}\r\n\r\n"
    )
    return head.encode() + _BODY


async def _answered(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    if b"content-length:" in lower:
        length = int(lower.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
    else:
        while int((await reader.readuntil(b"\r\n")), 16):
            await reader.readuntil(b"\r\n")
        await reader.readuntil(b"\r\n")
    return int(head.split(b" ", 2)[1])


async def _flood(edge: str, connections: int, seconds: float) -> dict[int, int]:
    host, _, port = edge.partition(":")
    ends = time.monotonic() + seconds
    seen: dict[int, int] = {}

    async def one() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.monotonic() < ends:
            writer.write(_request(edge, mint(os.urandom).text))
            status = await _answered(reader)
            seen[status] = seen.get(status, 0) + 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return seen


def flood(edge: str, connections: int, seconds: float, result: multiprocessing.Queue[dict[int, int]]) -> None:
    """The flood's process: puts how many answers of each status it got."""
    result.put(uvloop.run(_flood(edge, connections, seconds)))


async def _good(edge: str, token: str, seconds: float) -> list[float]:
    host, _, port = edge.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    ends, times = time.monotonic() + seconds, []
    while time.monotonic() < ends:
        begun = time.perf_counter()
        writer.write(_request(edge, token))
        if await _answered(reader) != 200:
            raise ValueError("the good key was refused")
        times.append(time.perf_counter() - begun)
        await asyncio.sleep(_GOOD_EVERY_S)
    writer.close()
    return times


def asked(stronghold: Stronghold) -> float:
    """How often Auth was asked about a key so far."""
    port = stronghold.weir.document["ports"]["metrics"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    samples = (sample for family in families for sample in family.samples)
    return sum(
        sample.value
        for sample in samples
        if sample.name == _ASKED and sample.labels["method"] == _AUTHENTICATE
    )


def _shown(times: list[float]) -> dict[str, float]:
    cuts = quantiles(times, n=100)
    return {"requests": len(times), "p50_ms": round(cuts[49] * 1e3, 2), "p99_ms": round(cuts[98] * 1e3, 2)}


def main() -> None:
    """Prints one JSON object a round."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    seconds, spawned = arguments.seconds, multiprocessing.get_context("spawn")
    with running_stronghold() as stronghold:
        edge, token = stronghold.weir.edge, stronghold.weir.key
        uvloop.run(_good(edge, token, 2))
        for number in range(arguments.rounds):
            alone = uvloop.run(_good(edge, token, seconds))
            result: multiprocessing.Queue[dict[int, int]] = spawned.Queue()
            process = spawned.Process(target=flood, args=(edge, arguments.connections, seconds + 2, result))
            before, begun = asked(stronghold), time.monotonic()
            process.start()
            time.sleep(1)  # the flood begins
            beside = uvloop.run(_good(edge, token, seconds))
            refused = result.get()
            process.join()
            took = time.monotonic() - begun
            line = {
                "round": number, "alone": _shown(alone), "beside": _shown(beside), "refused": refused,
                "flood_per_s": round(sum(refused.values()) / took),
                "auth_asked_per_s": round((asked(stronghold) - before) / took, 1),
                "p99_ratio": round(_shown(beside)["p99_ms"] / _shown(alone)["p99_ms"], 2),
            }  # fmt: skip
            sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
