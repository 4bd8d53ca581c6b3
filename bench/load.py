"""A closed-loop load on one OpenAI-format endpoint, in a process of its own: times as the client sees them.

Prints one JSON object: seconds for the whole answer and for the first event of each request, and the failures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from time import perf_counter

import aiohttp
import uvloop

KEY_VARIABLE = "BENCH_API_KEY"


async def one(session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[float, float]:
    """Asks once. Seconds to the first byte of the body, and to its end. Raises on anything but a whole answer."""
    begun = perf_counter()
    first = 0.0
    tail = b""
    async with session.post(url, data=body) as response:
        async for data in response.content.iter_any():
            first = first or perf_counter() - begun
            tail = (tail + data)[-64:]
        if response.status != 200:
            raise ValueError(f"status {response.status}")
    if body.count(b'"stream": true') and b"[DONE]" not in tail:
        raise ValueError("the stream did not end in [DONE]")
    return first, perf_counter() - begun


async def load(url: str, body: bytes, requests: int, connections: int) -> dict[str, object]:
    """`requests` in all, `connections` at a time."""
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {os.environ.get(KEY_VARIABLE, '')}",
    }
    left = iter(range(requests))
    firsts: list[float] = []
    wholes: list[float] = []
    failures: list[str] = []

    async def worker(session: aiohttp.ClientSession) -> None:
        for _ in left:
            try:
                first, whole = await one(session, url, body)
            except (aiohttp.ClientError, ValueError) as error:
                failures.append(repr(error))
            else:
                firsts.append(first)
                wholes.append(whole)

    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        begun = perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(connections)))
        took = perf_counter() - begun
    return {"first_s": firsts, "whole_s": wholes, "failures": failures, "took_s": took}


def main() -> None:
    """Reads the body from standard input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    arguments = parser.parse_args()
    body = sys.stdin.buffer.read()
    print(json.dumps(uvloop.run(load(arguments.url, body, arguments.requests, arguments.connections))))


if __name__ == "__main__":
    main()
