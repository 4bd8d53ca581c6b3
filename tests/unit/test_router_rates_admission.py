"""Who is let in, over Auth's own counting, in virtual time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from typing_extensions import override

from gen.weir.auth.v1 import LeaseRateRequest, Meter, RateSubjectKind
from meshkit.errors import RateLimited, UpstreamError
from meshkit.telemetry import Logger
from services.router.rate_settings import RateSettings
from services.router.rates.admission import Ticket
from services.router.rates.subjects import Limit
from tests.fakes.router_rates import Authority, Desk, all_of, limit, until, virtually

CLOSED = RateSettings(outage="closed")


def _named(request: LeaseRateRequest) -> dict[str, tuple[int, int, int]]:
    """Used, held and wanted of each limit of a request, by its name."""
    return {
        demand.limit.name: (demand.used_total, demand.held, demand.wanted)
        for demand in request.demands
        if demand.limit is not None
    }


def test_exactly_as_many_as_the_limit() -> None:
    """Of 200 requests at once for 40 a minute, 40 are let in, at the cost of a few calls."""

    async def scenario() -> None:
        authority = Authority({"k": 40})
        async with Desk(authority).running() as desk:
            results = await all_of(*(desk.admission.enter([limit(40)], 10) for _ in range(200)))
            refused = [one for one in results if isinstance(one, RateLimited)]
            assert sum(isinstance(one, Ticket) for one in results) == 40
            assert len(refused) == 160
            assert len(authority.requests) <= 3
            assert "the key's limit of 40 requests per minute is used up" in refused[-1].message
            assert refused[-1].retry_after is not None
            assert timedelta(seconds=50) < refused[-1].retry_after <= timedelta(seconds=61)
            assert refused[-1].headers["x-ratelimit-limit-requests"] == "40"
            assert refused[-1].headers["x-ratelimit-remaining-requests"] == "0"
            assert desk.counted("weir_router_rate_limited_total", kind="key", meter="requests") == 160

    virtually(scenario())


def test_all_limits_or_nothing() -> None:
    """A request that its org's limit refuses takes nothing of its key's."""

    async def scenario() -> None:
        authority = Authority({"k": 100, "acme": 1})
        both = [limit(100), limit(1, name="acme", kind=RateSubjectKind.ORG)]
        async with Desk(authority).running() as desk:
            await desk.admission.enter(both, 1)
            for _ in range(3):
                with pytest.raises(RateLimited, match="the org acme's limit of 1 requests per minute"):
                    await desk.admission.enter(both, 1)
            await desk.admission.enter(both[:1], 1)
            await until(lambda: _named(authority.requests[-1]).get("k", (0, 0, 0))[0] == 2)

    virtually(scenario())


def test_a_flood_of_refused_costs_few_calls() -> None:
    """For 10 s, a request each 2 ms of a key that has nothing left: some 5 calls a second."""

    async def scenario() -> None:
        authority = Authority({"k": 1})
        async with Desk(authority).running() as desk:
            await desk.admission.enter([limit(1)], 1)
            before = len(authority.requests)
            for _ in range(5_000):
                with pytest.raises(RateLimited):
                    await desk.admission.enter([limit(1)], 1)
                await asyncio.sleep(0.002)
            assert len(authority.requests) - before <= 80

    virtually(scenario())


def test_warm_requests_ask_nobody() -> None:
    """Once the router knows about how many come, most are let in without a call of their own."""

    async def scenario() -> None:
        authority = Authority({"k": 100_000})
        async with Desk(authority).running() as desk:
            for _ in range(500):
                await desk.admission.enter([limit(100_000)], 1)
                await asyncio.sleep(0.01)
            assert len(authority.requests) < 5 / 0.25 * 2

    virtually(scenario())


def test_tokens_become_what_was_used() -> None:
    """They are set aside at the beginning; at the end the rest is free again, the excess is booked, once."""

    async def scenario() -> None:
        authority = Authority({"k": 1_000})
        tokens = limit(1_000, Meter.TOKENS)
        async with Desk(authority).running() as desk:
            first = await desk.admission.enter([tokens], 600)
            with pytest.raises(
                RateLimited, match=r"1000 tokens per minute is used up, and this request may take 600"
            ):
                await desk.admission.enter([tokens], 600)
            first.settle(100)
            first.settle(100)
            second = await desk.admission.enter([tokens], 600)
            second.settle(800)
            await until(lambda: _named(authority.requests[-1])["k"][0] == 900)
            await asyncio.sleep(0.5)
            assert _named(authority.requests[-1])["k"][0] == 900
            with pytest.raises(RateLimited):
                await desk.admission.enter([tokens], 200)
            await desk.admission.enter([tokens], 90)

    virtually(scenario())


def test_a_request_never_needs_more_than_there_is() -> None:
    """One that may take more than the limit takes the limit: else it could never begin."""

    async def scenario() -> None:
        async with Desk(Authority({"k": 50})).running() as desk:
            ticket = await desk.admission.enter([limit(50, Meter.TOKENS)], 5_000)
            assert dict(ticket.headers)["x-ratelimit-remaining-tokens"] == "0"

    virtually(scenario())


def test_slots_come_back() -> None:
    """Two at once, a third when one of them ended, also where the slots are another router's."""

    async def scenario() -> None:
        authority = Authority({"k": 2})
        slots = [limit(2, Meter.CONCURRENT)]
        async with Desk(authority).running() as one, Desk(authority, name="two").running() as other:
            first = await one.admission.enter(slots, 1)
            second = await one.admission.enter(slots, 1)
            for desk in (one, other):
                with pytest.raises(RateLimited, match="2 requests at the same time"):
                    await desk.admission.enter(slots, 1)
            first.settle(0)
            third = await one.admission.enter(slots, 1)
            third.settle(0)
            second.settle(0)
            begun = one.clock.monotonic()
            while True:
                try:
                    await other.admission.enter(slots, 1)
                except RateLimited:
                    await asyncio.sleep(0.01)
                else:
                    break
            assert one.clock.monotonic() - begun < 1.0

    virtually(scenario())


def test_an_idle_limit_is_given_back_and_forgotten() -> None:
    """After a second nothing is held, and a little later nobody is asked any more; it can be used again at any time."""

    async def scenario() -> None:
        authority = Authority({"k": 10})
        async with Desk(authority).running() as desk:
            for times in (3, 3):
                for _ in range(times):
                    await desk.admission.enter([limit(10)], 1)
                await asyncio.sleep(2)
                before = len(authority.requests)
                assert authority.requests[-1].demands == []
                await asyncio.sleep(5)
                assert len(authority.requests) == before
            ticket = await desk.admission.enter([limit(10)], 1)
            assert dict(ticket.headers)["x-ratelimit-remaining-requests"] == "3"

    virtually(scenario())


def test_no_limit_after_all() -> None:
    """Where Auth says that there is none, requests pass, and nothing is told of it."""

    async def scenario() -> None:
        async with Desk(Authority({})).running() as desk:
            for _ in range(30):
                assert not (await desk.admission.enter([limit(5)], 1)).headers

    virtually(scenario())


def test_auth_away_each_takes_its_share() -> None:
    """Half of the limit for one of two routers, per minute by its own count; all is well again when Auth is back."""

    async def scenario() -> None:
        authority = Authority({"k": 20})
        async with Desk(authority, workers=2).running() as desk:
            authority.away = True
            results = await all_of(*(desk.admission.enter([limit(20)], 1) for _ in range(30)))
            assert sum(isinstance(one, Ticket) for one in results) == 10
            assert desk.counted("weir_router_rate_outage") == 1
            refused = [one for one in results if isinstance(one, RateLimited)]
            assert refused[0].retry_after is not None
            assert timedelta(seconds=55) < refused[0].retry_after <= timedelta(seconds=61)
            await asyncio.sleep(62)
            await desk.admission.enter([limit(20)], 1)
            authority.away = False
            await until(lambda: desk.counted("weir_router_rate_outage") == 0)
            assert _named(authority.requests[-1])["k"][0] == 11  # what was used alone is told

    virtually(scenario())


def test_auth_away_what_is_at_hand_is_spent_first() -> None:
    """A router that holds all of the limit goes on with it while Auth's word holds, not longer."""

    async def scenario() -> None:
        authority = Authority({"k": 100}, good_for_s=10.0)
        async with Desk(authority, CLOSED).running() as desk:
            await all_of(*(desk.admission.enter([limit(100)], 1) for _ in range(50)))
            await asyncio.sleep(0.3)
            authority.away = True
            begun = desk.clock.monotonic()
            for _ in range(10):
                await desk.admission.enter([limit(100)], 1)
                await asyncio.sleep(0.1)
            await asyncio.sleep(8.0 - (desk.clock.monotonic() - begun))
            with pytest.raises(UpstreamError, match="auth does not answer"):
                await desk.admission.enter([limit(100)], 1)

    virtually(scenario())


@pytest.mark.parametrize("meter", [Meter.TOKENS, Meter.CONCURRENT])
def test_auth_away_other_meters(meter: Meter) -> None:
    """Tokens and slots are shared too, and what a request borrowed is not taken for something granted."""

    async def scenario() -> None:
        authority = Authority({"k": 4})
        authority.away = True
        async with Desk(authority, workers=2).running() as desk:
            tickets = [await desk.admission.enter([limit(4, meter)], 1) for _ in range(2)]
            with pytest.raises(RateLimited):
                await desk.admission.enter([limit(4, meter)], 1)
            authority.away = False
            await until(lambda: bool(authority.requests))
            assert _named(authority.requests[-1])["k"][1] == 2
            for ticket in tickets:
                ticket.settle(1)
            await asyncio.sleep(2)
            used = 2 if meter is Meter.TOKENS else 0
            assert any(_named(one).get("k") == (used, 0, 0) for one in authority.requests)

    virtually(scenario())


def test_auth_slow() -> None:
    """A request waits half a second and no longer, and is told that nobody knows."""

    async def scenario() -> None:
        authority = Authority({"k": 4})
        authority.takes_s = 1.5
        async with Desk(authority).running() as desk:
            begun = desk.clock.monotonic()
            with pytest.raises(RateLimited, match="could not be looked up in time"):
                await desk.admission.enter([limit(4)], 1)
            assert desk.clock.monotonic() - begun == pytest.approx(0.5)

    virtually(scenario())


def test_auth_that_forgot_us() -> None:
    """Where Auth takes nothing under the holder's name, another one is used, and what was not told is told under it."""

    async def scenario() -> None:
        authority = Authority({"k": 10})
        async with Desk(authority).running() as desk:
            await desk.admission.enter([limit(10)], 1)
            await asyncio.sleep(0.3)
            (window,) = authority.store.windows.values()
            window.holdings["router-1"].seen = 5  # as if another process had used our name
            await desk.admission.enter([limit(10)], 1)
            await until(lambda: authority.requests[-1].holder == "router-2")
            assert _named(authority.requests[-1])["k"][0] == 1

    virtually(scenario())


def test_too_many_limits() -> None:
    """Their number is bounded; those in use go on."""

    async def scenario() -> None:
        authority = Authority({f"k{number}": 5 for number in range(3)})
        async with Desk(authority, RateSettings(max_limits=2)).running() as desk:
            limits: list[Limit] = [limit(5, name=f"k{number}") for number in range(3)]
            for one in limits[:2]:
                await desk.admission.enter([one], 1)
            with pytest.raises(UpstreamError, match="over 2 limits"):
                await desk.admission.enter(limits[2:], 1)
            await desk.admission.enter(limits[:1], 1)

    virtually(scenario())


def test_more_limits_than_one_holder_may_name() -> None:
    """Then there is another holder; each names a thousand at most."""

    async def scenario() -> None:
        names = [f"k{number}" for number in range(1_500)]
        authority = Authority(dict.fromkeys(names, 5))
        async with Desk(authority).running() as desk:
            results = await all_of(*(desk.admission.enter([limit(5, name=name)], 1) for name in names))
            assert all(isinstance(one, Ticket) for one in results)
            assert {one.holder for one in authority.requests} == {"router-1", "router-2"}
            assert max(len(one.demands) for one in authority.requests) == 1_000

    virtually(scenario())


def test_the_end_gives_everything_back() -> None:
    """A router that stops leaves nothing behind that others would have to wait for."""

    async def scenario() -> None:
        authority = Authority({"k": 10})
        async with Desk(authority).running() as desk:
            await all_of(*(desk.admission.enter([limit(10)], 1) for _ in range(8)))
        assert _named(authority.requests[-1])["k"] == (8, 0, 0)

    virtually(scenario())


def test_an_outage_is_told_once() -> None:
    """One line when Auth goes away and one when it is back, however many calls failed in between."""
    told: list[str] = []

    class _Log(Logger):
        @override
        def _write(self, level: str, event: str, facts: dict[str, Any]) -> None:
            told.append(event)

    async def scenario() -> None:
        authority = Authority({"k": 20})
        async with Desk(authority).running() as desk:
            desk.leases._log = _Log("router")
            authority.away = True
            for _ in range(10):
                await desk.admission.enter([limit(20)], 1)
                await asyncio.sleep(0.5)
            assert told == ["auth does not answer about limits"]
            assert desk.counted("weir_router_rate_exchange_failures_total") >= 3
            authority.away = False
            await until(lambda: len(told) == 2)
            assert told[-1] == "auth answers about limits again"

    virtually(scenario())
