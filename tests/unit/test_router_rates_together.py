"""Two routers and one limit: Auth's own counting, far more load than is allowed, a network that loses things."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random

import pytest

from gen.weir.auth.v1 import Meter
from meshkit.errors import RateLimited, UpstreamError
from services.router.rate_settings import RateSettings
from services.router.rates.subjects import Limit
from tests.fakes.router_rates import Authority, Desk, Network, limit, virtually

WINDOW_S = 60.0
STRICT = RateSettings(outage="closed")


@dataclass
class Load:
    """What came of the requests to all routers."""

    random: Random
    used: list[tuple[float, int]] = field(default_factory=list)
    """When units were used, and how many."""
    running: int = 0
    most_running: int = 0
    """At the same time; of TOKENS: set aside."""

    async def on(self, desk: Desk, limits: Sequence[Limit], per_s: float, for_s: float) -> None:
        """Requests at random moments."""
        async with asyncio.TaskGroup() as tasks:
            ends_s = desk.clock.monotonic() + for_s
            while desk.clock.monotonic() < ends_s:
                await asyncio.sleep(self.random.expovariate(per_s))
                tasks.create_task(self._request(desk, limits))

    async def _request(self, desk: Desk, limits: Sequence[Limit]) -> None:
        tokens = self.random.randint(1, 40)
        try:
            ticket = await desk.admission.enter(limits, tokens)
        except (RateLimited, UpstreamError):
            return
        meter = limits[0].meter
        weight = tokens if meter is Meter.TOKENS else 1
        self.running += weight
        self.most_running = max(self.most_running, self.running)
        if meter is Meter.REQUESTS:
            self.used.append((desk.clock.monotonic(), 1))
        await asyncio.sleep(self.random.uniform(0.0, 1.0))
        self.running -= weight
        used = self.random.randint(0, tokens)
        ticket.settle(used)
        if meter is Meter.TOKENS:
            self.used.append((desk.clock.monotonic(), used))

    def most_in_a_window(self) -> int:
        """Units used in the worst 60 s."""
        times = [at_s for at_s, _ in self.used]
        before = [0]
        for _, units in self.used:
            before.append(before[-1] + units)
        return max(
            before[bisect_right(times, at_s + WINDOW_S)] - before[index] for index, at_s in enumerate(times)
        )


async def _burden(
    limits: Sequence[Limit],
    *,
    loses: float = 0.0,
    cuts: bool = False,
    for_s: float = 150.0,
    seed: int = 1,
    good_for_s: float = 3.0,
) -> tuple[Load, Authority]:
    """Two routers under load; at times one of them is cut off."""
    load = Load(Random(seed))  # noqa: S311 - the same load at each run; it guards nothing
    authority = Authority({one.name: one.total for one in limits}, good_for_s)
    networks = [Network(authority, load.random, loses) for _ in range(2)]
    async with AsyncExitStack() as exits:
        desks = [
            await exits.enter_async_context(Desk(network, STRICT, name=f"r{number}", workers=2).running())
            for number, network in enumerate(networks)
        ]
        async with asyncio.TaskGroup() as tasks:
            for desk, per_s in zip(desks, (25.0, 10.0), strict=True):
                tasks.create_task(load.on(desk, limits, per_s, for_s))
            while cuts and desks[0].clock.monotonic() < 1_000.0 + for_s:
                await asyncio.sleep(load.random.uniform(2, 15))
                network = load.random.choice(networks)
                network.is_cut = True
                await asyncio.sleep(load.random.uniform(0.5, 8))
                network.is_cut = False
    return load, authority


def test_steady_overload_uses_the_limit_and_no_more() -> None:
    """In no 60 s more than 300 requests, on the average nearly as many, though seven times as many come."""
    load, authority = virtually(_burden([limit(300)], for_s=300.0))
    assert load.most_in_a_window() <= 300
    later = sum(units for at_s, units in load.used if 1_060 <= at_s < 1_300)
    assert later >= 0.9 * 300 * 4
    assert len(authority.requests) <= 300 * 2 * 9  # each router: 4 reports a second, and a few calls more


@pytest.mark.parametrize("seed", range(4))
def test_losses_never_let_more_in(seed: int) -> None:
    """Lost calls, lost answers, routers cut off for longer than Auth's word holds: the limit holds all the same."""
    load, _ = virtually(_burden([limit(200)], loses=0.1, cuts=True, seed=seed))
    assert 20 < load.most_in_a_window() <= 200


@pytest.mark.parametrize("loses", [0.0, 0.1])
def test_tokens_hold_and_settle_once(loses: float) -> None:
    """Tokens are counted when requests end; all that were used, and nothing else, has reached Auth at the end."""
    load, authority = virtually(_burden([limit(3_000, Meter.TOKENS)], loses=loses, for_s=90.0))
    assert 500 < load.most_in_a_window() <= 3_000
    if loses:
        return  # a router that stops without an answer leaves its last report to chance
    highest: dict[str, int] = {}
    for request in authority.requests:
        for demand in request.demands:
            highest[request.holder] = max(highest.get(request.holder, 0), demand.used_total)
    assert sum(highest.values()) == sum(units for _, units in load.used)


@pytest.mark.parametrize("loses", [0.0, 0.1])
def test_never_more_at_the_same_time(loses: float) -> None:
    """Five slots for two routers: all of them are used, and no sixth, as long as no router is given up for lost."""
    load, _ = virtually(_burden([limit(5, Meter.CONCURRENT)], loses=loses, for_s=60.0, good_for_s=30.0))
    assert load.most_running == 5
