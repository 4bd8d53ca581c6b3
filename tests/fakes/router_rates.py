"""Limits without a mesh: a loop whose time is virtual, Auth's own counting in memory, and a network that fails."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from gen.weir.auth.v1 import LeaseRateRequest, LeaseRateResponse, Meter, RateLimit, RateSubjectKind
from meshkit.errors import UpstreamError, UpstreamTimeout
from meshkit.telemetry import Logger
from services.auth.domain.rate_window import Window
from services.auth.lease_rate import LeaseRate
from services.auth.ports import RateBook
from services.router.ports import RateAuthority
from services.router.rate_settings import RateSettings
from services.router.rates.admission import Admission
from services.router.rates.leases import Leases
from services.router.rates.metrics import RateMetrics
from services.router.rates.subjects import Limit

T = TypeVar("T")


class _NoWaiting(selectors.SelectSelector):
    """Reports what a loop would have waited for, instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: Callable[[float], None] = lambda _: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits for something that nobody will do")
        if timeout > 0:
            self.passes(timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in which every wait is over at once, and time is as if it had been waited."""

    def __init__(self) -> None:
        selector = _NoWaiting()
        self._virtual_s = 1_000.0
        super().__init__(selector)
        selector.passes = self._pass

    def time(self) -> float:
        return self._virtual_s

    def _pass(self, seconds: float) -> None:
        self._virtual_s += seconds


def virtually(scenario: Coroutine[Any, Any, T]) -> T:
    """Runs a scenario in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario)


class LoopClock:
    """The running loop's time (services.router.ports.Clock)."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.monotonic(), UTC)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class RatesInMemory:
    """RateStore of the running loop's time."""

    def __init__(self) -> None:
        self.windows: dict[str, Window] = {}
        self._named: dict[str, set[str]] = {}

    async def exchange(self, holder: str, limits: Sequence[str], use: Callable[[RateBook], T]) -> T:
        now_s = asyncio.get_running_loop().time()
        before = self._named.get(holder, set())
        windows = {limit_id: self.windows.setdefault(limit_id, Window()) for limit_id in {*limits, *before}}
        self._named[holder] = set(limits)
        return use(RateBook(now_s, len(self._named), windows))

    async def sweep(self) -> int:
        return 0


class Authority:
    """Auth's own LeaseRate in memory, behind a network of the test's choosing (services.router.ports.RateAuthority)."""

    def __init__(self, totals: Mapping[str | Meter, int], good_for_s: float = 10.0) -> None:
        self.totals = dict(totals)
        """By the name of whose limit it is, or by what is counted."""
        self.requests: list[LeaseRateRequest] = []
        self.away = False
        """Nobody listens."""
        self.takes_s = 0.002
        self.store = RatesInMemory()
        self._lease = LeaseRate(
            self.store, self._total, timedelta(seconds=good_for_s), timedelta(seconds=0.2)
        )

    def _total(self, limit: RateLimit) -> int:
        return self.totals.get(limit.name) or self.totals.get(Meter(limit.meter), 0)

    async def lease(self, request: LeaseRateRequest) -> LeaseRateResponse:
        """Asks once."""
        if self.away:
            raise UpstreamError("nobody listens")
        await asyncio.sleep(self.takes_s)
        self.requests.append(request)
        return await self._lease(request)


@dataclass
class Network:
    """Between one router and an authority: loses calls and answers (services.router.ports.RateAuthority)."""

    authority: RateAuthority
    random: Random
    loses: float = 0.0
    """Share of calls that never arrive, and of answers that never come back."""
    is_cut: bool = False
    limit_s: float = 2.0

    async def lease(self, request: LeaseRateRequest) -> LeaseRateResponse:
        """Asks once."""
        if self.is_cut or self.random.random() < self.loses:
            return await self._lost()
        response = await self.authority.lease(request)
        return await self._lost() if self.random.random() < self.loses else response

    async def _lost(self) -> LeaseRateResponse:
        await asyncio.sleep(self.limit_s)
        raise UpstreamTimeout("no answer")


@dataclass
class Desk:
    """A router's side of limits."""

    authority: RateAuthority
    settings: RateSettings = field(default_factory=RateSettings)
    name: str = "router"
    workers: int = 1

    def __post_init__(self) -> None:
        self.clock = LoopClock()
        self.registry = CollectorRegistry()
        metrics = RateMetrics(self.registry)
        self.holders = 0
        self.leases = Leases(
            self.authority, self.settings, self.clock, self._holder, self.workers, metrics, Logger("test", -1)
        )
        self.admission = Admission(self.leases, self.settings, self.clock, metrics)
        self.metrics = metrics

    def _holder(self) -> str:
        self.holders += 1
        return f"{self.name}-{self.holders}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Desk]:
        """With its background work."""
        task = asyncio.create_task(self.leases.watch())
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self.leases.stop()

    def counted(self, name: str, **labels: str) -> float:
        """One of its metrics."""
        return self.registry.get_sample_value(name, labels) or 0.0


def limit(
    total: int,
    meter: Meter = Meter.REQUESTS,
    name: str = "k",
    kind: RateSubjectKind = RateSubjectKind.KEY,
) -> Limit:
    """One limit, of a key's requests unless told otherwise."""
    return Limit(kind, name, meter, total)


async def until(condition: Callable[[], bool], at_most_s: float = 30.0) -> None:
    """Returns when it holds, looked at each virtual millisecond."""
    async with asyncio.timeout(at_most_s):
        while not condition():  # noqa: ASYNC110 - the state is another task's
            await asyncio.sleep(0.001)


async def all_of(*awaitables: Awaitable[T]) -> list[T | BaseException]:
    """Results and errors, all at once."""
    return list(await asyncio.gather(*awaitables, return_exceptions=True))
