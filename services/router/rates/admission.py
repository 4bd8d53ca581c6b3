"""Lets requests in that keep within their limits, and takes back what they did not use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gen.rpc import Metadata
from meshkit.errors import UpstreamError, WeirError
from services.router.ports import Clock
from services.router.rate_settings import RateSettings
from services.router.rates.headers import ratelimit_headers
from services.router.rates.leases import Leases
from services.router.rates.metrics import RateMetrics
from services.router.rates.refusals import Need, not_in_time, used_up
from services.router.rates.subjects import Limit

DEFERRED_S: Final = 0.05
"""After which Auth is asked again where it keeps what is left for others who have not come for it yet."""


class Ticket:
    """What one request took of its limits."""

    __slots__ = ("_clock", "_taken", "headers")

    def __init__(self, taken: Sequence[Need], headers: Metadata, clock: Clock) -> None:
        self._taken = taken
        self._clock = clock
        self.headers = headers
        """What its client is told."""

    def settle(self, used_tokens: int) -> None:
        """The request ended and used so many tokens; what else it took is free again. Does nothing a second time."""
        now_s = self._clock.monotonic()
        taken, self._taken = self._taken, ()
        for held, units in taken:
            held.settle(units, used_tokens, now_s)


class Admission:
    """Asks all limits of a request at once: it takes something of each of them, or nothing of any."""

    def __init__(self, leases: Leases, settings: RateSettings, clock: Clock, metrics: RateMetrics) -> None:
        self._leases = leases
        self._settings = settings
        self._clock = clock
        self._metrics = metrics

    async def enter(self, limits: Sequence[Limit], tokens: int) -> Ticket:
        """Lets a request in that sets aside so many tokens; it is settled when it ends.

        Raises RateLimited; UpstreamError where Auth is away and the settings say `closed`.
        """
        now_s = self._clock.monotonic()
        needs = self._needs(limits, tokens)
        for held, units in needs:
            if not held.has(units, now_s):
                return await self._after_asking(needs)
        return self._took(needs, now_s)

    def _needs(self, limits: Sequence[Limit], tokens: int) -> list[Need]:
        held_of = self._leases.slice
        return [(held, held.units_of(tokens)) for limit in limits for held in (held_of(limit),)]

    def _took(self, needs: Sequence[Need], now_s: float) -> Ticket:
        taken = [need for need in needs if need[0].take(need[1], now_s)]
        return Ticket(taken, ratelimit_headers([held for held, _ in taken], now_s), self._clock)

    async def _after_asking(self, needs: Sequence[Need]) -> Ticket:
        for held, units in needs:
            held.pending += units
        try:
            return await self._asked(needs)
        finally:
            for held, units in needs:
                held.pending -= units

    async def _asked(self, needs: Sequence[Need]) -> Ticket:
        ends_s = self._clock.monotonic() + self._settings.wait_s
        while True:
            now_s = self._clock.monotonic()
            lacking = [need for need in needs if not need[0].has(need[1], now_s)]
            if not lacking:
                return self._took(needs, now_s)
            if any(held.lease.away for held, _ in lacking):
                return self._took(self._shared(needs, now_s), now_s)
            short = [need for need in lacking if need[0].is_short(now_s)]
            if short:
                raise self._refused(short, needs, now_s)
            deferred = [need for need in lacking if need[0].is_deferred]
            if now_s >= ends_s:
                raise self._refused(deferred, needs, now_s) if deferred else self._late(lacking, needs, now_s)
            if deferred:
                await self._clock.sleep(DEFERRED_S)
            await self._leases.asked([held.limit for held, _ in lacking], ends_s - now_s)

    def _shared(self, needs: Sequence[Need], now_s: float) -> list[Need]:
        """What the request takes while Auth is away, by this worker's own count."""
        if self._settings.outage == "closed":
            raise UpstreamError("the limits of this request cannot be checked: auth does not answer")
        taken = [
            (held, units) if held.has(units, now_s) else (held, min(units, held.share))
            for held, units in needs
        ]
        short = [
            (held, units)
            for held, units in taken
            if not held.has(units, now_s) and not (held.lease.away and held.shares(units, now_s))
        ]
        if short:
            raise self._refused(short, needs, now_s)
        return taken

    def _refused(self, short: Sequence[Need], needs: Sequence[Need], now_s: float) -> WeirError:
        for held, units in short:
            held.refuse(units, now_s)
        last = max(short, key=lambda need: need[0].retry_after_s(need[1], now_s))
        self._metrics.limited(last[0].limit)
        return used_up(last, needs, now_s)

    def _late(self, lacking: Sequence[Need], needs: Sequence[Need], now_s: float) -> WeirError:
        for held, units in lacking:
            held.refuse(units, now_s)
        self._metrics.limited(lacking[0][0].limit)
        return not_in_time(lacking[0], needs, self._settings.wait_s, now_s)
