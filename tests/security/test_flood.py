"""Many clients at once that are slow on purpose, or try keys: they keep nobody else away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from services.router.identity_settings import IdentitySettings
from tests.harness.stronghold import Stronghold
from tests.security.administration import bearer, unknown
from tests.security.callers import OTHER_ROUTES
from tests.security.load import AUTH, OK, WORKERS, served, under_load
from tests.security.test_abuse import head
from tests.security.watch import Memory

pytestmark = pytest.mark.xdist_group("security")
AUTHENTICATE = "/weir.auth.v1.Auth/Authenticate"
KEYS, CONNECTIONS = 300, 64
SLOW_EACH, A_BYTE_EVERY_S, ENOUGH = 50, 0.05, 50
HEADERS_S, REQUEST_S, MARGIN_S = 2.0, 5.0, 10.0
"""What the stronghold's edge grants a request's headers, and a whole request; and what a busy machine adds."""
MEMORY_MIB = 32
TIMED_OUT = 408


def test_a_flood_of_unknown_keys(
    stronghold: Stronghold, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """Auth is asked about as many as the settings say, by each router; a good key has no failure meanwhile."""
    settings = IdentitySettings()
    before, begun_s = served(stronghold, AUTH, AUTHENTICATE), time.monotonic()
    with (
        under_load(stronghold, {"good": stronghold.weir.key}, threads_each=1) as load,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        ask = OTHER_ROUTES["models"].ask
        asked = [pool.submit(ask, stronghold, bearer(unknown())) for _ in range(KEYS)]
        statuses = [future.result().status for future in asked]
    took_s, asked_auth = time.monotonic() - begun_s, served(stronghold, AUTH, AUTHENTICATE) - before
    record_testsuite_property(f"of {KEYS} unknown keys in {took_s:.2f} s asked of auth", asked_auth)
    assert 0 < asked_auth <= (settings.asks_burst + settings.asks_per_s * took_s) * len(WORKERS)
    assert set(statuses) == {401, 429}
    assert load.failures("good") == []
    assert load.count("good") > 0


@dataclass(frozen=True)
class Held:
    """How a slow request ended."""

    status: int
    """0 where the connection was closed without an answer."""
    seconds: float


async def drip(edge: str, first: bytes, then: bytes) -> Held:
    """Sends `first` at once and of `then` a byte now and then, until it is answered or the connection is closed."""
    host, _, port = edge.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    begun_s = time.monotonic()
    writer.write(first)
    answered = asyncio.create_task(reader.read(64))
    for byte in then:
        writer.write(bytes([byte]))
        if (await asyncio.wait({answered}, timeout=A_BYTE_EVERY_S))[0]:
            break
    line = await answered
    took_s = time.monotonic() - begun_s
    writer.close()
    return Held(int(line.split()[1]) if line else 0, took_s)


async def test_slow_clients(stronghold: Stronghold) -> None:
    """Whoever sends headers or a body a byte at a time, or announces gigabytes, has a connection and nothing else.

    It ends when the edge says so, and others are served as if nobody was there.
    """
    edge, memory = stronghold.weir.edge, Memory(stronghold)
    headers = head(stronghold.weir.key, 2)[:-2] + b"x-slow: " + b"y" * 1_000
    slow_headers = [drip(edge, b"", headers) for _ in range(SLOW_EACH)]
    lengths = [*[1_000] * SLOW_EACH, 10**10, 2**63 - 1]
    slow_bodies = [drip(edge, head(stronghold.weir.key, length), b" " * 1_000) for length in lengths]
    with under_load(stronghold, {"good": stronghold.weir.key}, threads_each=2) as load:
        held = await asyncio.gather(*slow_headers, *slow_bodies)
        memory_mib = max(memory.peak_mib().values())
    for one in held[:SLOW_EACH]:
        assert one.status == TIMED_OUT
        assert one.seconds < HEADERS_S + MARGIN_S
    for one in held[SLOW_EACH:]:
        assert one.status in {TIMED_OUT, 413}
        assert one.seconds < REQUEST_S + MARGIN_S
    assert load.failures("good") == []
    assert load.count("good") > ENOUGH
    assert memory_mib < MEMORY_MIB
    assert OTHER_ROUTES["models"].ask(stronghold, bearer(stronghold.weir.key)).status == OK
