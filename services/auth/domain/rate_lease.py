"""One holder's turn at one limit."""

from __future__ import annotations

from dataclasses import dataclass

from services.auth.domain.rate_share import Claim, fair_part
from services.auth.domain.rate_window import Holding, Rule, Window


@dataclass(frozen=True, slots=True)
class Demand:
    """What a holder says; see weir.auth.v1.RateDemand. Nothing is below 0."""

    used_total: int
    held: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Leased:
    """What it gets; see weir.auth.v1.RateGrant."""

    granted: int
    free: int
    reset_s: float
    retry_after_s: float | None


def lease(window: Window, holder: str, demand: Demand, now_s: float, rule: Rule) -> Leased:
    """Books what was used, takes over what is held, grants what is free and fair.

    Raises InvalidRequest if `used_total` fell; the window is then not to be kept.
    """
    window.advance(now_s, rule)
    holding = window.report(holder, demand.used_total, demand.held, rule)
    free = window.free(rule)
    others = [
        Claim(one.unmet, one.recent)
        for name, one in window.holdings.items()
        if name != holder and _speaks(one, now_s, rule)
    ]
    granted = fair_part(free, Claim(demand.wanted, holding.recent), others)
    holding.held += granted
    holding.recent += granted
    holding.unmet = demand.wanted - granted
    window.settle(rule)
    return _leased(window, granted, free - granted, rule)


def _speaks(holding: Holding, now_s: float, rule: Rule) -> bool:
    return now_s < holding.heard_s + rule.good_for_s


def _leased(window: Window, granted: int, free: int, rule: Rule) -> Leased:
    reset_s = window.empty_s(rule) - window.at_s
    if free > 0:
        return Leased(granted, free, reset_s, None)
    retry_s, missing = rule.retry_s, 1 - free
    for at_s, units in window.leaving(rule):
        missing -= units
        if missing <= 0:
            retry_s = at_s - window.at_s
            break
    return Leased(granted, 0, reset_s, retry_s)
