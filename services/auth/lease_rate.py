"""LeaseRate: hands out slices of limits, so that they hold across routers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from gen.weir.auth.v1 import (
    LeaseRateRequest,
    LeaseRateResponse,
    Meter,
    RateDemand,
    RateGrant,
    RateLimit,
    RateSubjectKind,
)
from meshkit.errors import InvalidRequest
from services.auth.domain.rate_lease import Demand, Leased, lease
from services.auth.domain.rate_window import Rule
from services.auth.ports import RateBook, RateStore

MAX_DEMANDS: Final = 1000
MAX_NAME_CHARS: Final = 256
MAX_HOLDER_CHARS: Final = 200
MAX_UNITS: Final = 2**62
MAX_HOLDERS: Final = 1000
"""Of one limit."""

_KINDS: Final = frozenset(RateSubjectKind) - {RateSubjectKind.UNSPECIFIED}
_UNKEEPABLE: Final = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL keeps neither NUL nor half a character."""
_METERS: Final = frozenset(Meter) - {Meter.UNSPECIFIED}


@dataclass(frozen=True, slots=True)
class _Asked:
    """One checked demand."""

    limit: RateLimit
    demand: Demand
    rule: Rule


class LeaseRate:
    """Counts in the store, so that every auth process counts the same.

    Args:
        total_of: how many units a limit has now; 0 where there is none.
        good_for: how long a holder may be silent.
        retry: when to ask again where nobody knows when units come free.
    """

    def __init__(
        self, store: RateStore, total_of: Callable[[RateLimit], int], good_for: timedelta, retry: timedelta
    ) -> None:
        self._store = store
        self._total_of = total_of
        self._good_for = good_for
        self._retry = retry

    async def __call__(self, request: LeaseRateRequest) -> LeaseRateResponse:
        """One grant for each demand. Raises InvalidRequest; UpstreamError while the store cannot be reached."""
        _check_text("holder", request.holder, MAX_HOLDER_CHARS)
        asked = self._asked(request.demands)
        counted = {limit_id: one for limit_id, one in asked.items() if one.rule.total}

        def use(book: RateBook) -> tuple[dict[str, Leased], int]:
            return _use(book, request.holder, counted), book.holders

        leased, holders = await self._store.exchange(request.holder, list(counted), use)
        grants = [_grant(one, leased.get(limit_id)) for limit_id, one in asked.items()]
        return LeaseRateResponse(grants=grants, good_for=self._good_for, holders=holders)

    def _asked(self, demands: list[RateDemand]) -> dict[str, _Asked]:
        if len(demands) > MAX_DEMANDS:
            raise InvalidRequest(f"{len(demands)} demands; {MAX_DEMANDS} are allowed", param="demands")
        asked = {_checked_id(demand.limit): self._one(demand) for demand in demands}
        if len(asked) < len(demands):
            raise InvalidRequest("a limit is named twice", param="demands")
        return asked

    def _one(self, said: RateDemand) -> _Asked:
        limit = RateLimit() if said.limit is None else said.limit
        if not all(0 <= units <= MAX_UNITS for units in (said.used_total, said.held, said.wanted)):
            raise InvalidRequest("used_total, held or wanted is out of bounds", param="demands")
        slides = limit.meter is not Meter.CONCURRENT
        if said.used_total and not slides:
            raise InvalidRequest("requests at the same time are never used up", param="demands")
        rule = Rule(
            self._total_of(limit), slides, self._good_for.total_seconds(), self._retry.total_seconds()
        )
        return _Asked(limit, Demand(said.used_total, said.held, said.wanted), rule)


def _use(book: RateBook, holder: str, counted: Mapping[str, _Asked]) -> dict[str, Leased]:
    leased = {}
    for limit_id, window in book.windows.items():
        one = counted.get(limit_id)
        if one is None:
            window.give_back(holder)
            continue
        leased[limit_id] = lease(window, holder, one.demand, book.now_s, one.rule)
        if len(window.holdings) > MAX_HOLDERS:
            raise InvalidRequest(f"a limit has over {MAX_HOLDERS} holders", param="holder")
    return leased


def _grant(one: _Asked, leased: Leased | None) -> RateGrant:
    if leased is None:
        return RateGrant(limit=one.limit)
    retry_s = leased.retry_after_s
    return RateGrant(
        limit=one.limit,
        granted=leased.granted,
        total=one.rule.total,
        free=leased.free,
        reset=timedelta(seconds=leased.reset_s),
        retry_after=None if retry_s is None else timedelta(seconds=retry_s),
    )


def _checked_id(limit: RateLimit | None) -> str:
    """Unlike that of any other limit. Raises InvalidRequest."""
    if limit is None or limit.kind not in _KINDS or limit.meter not in _METERS:
        raise InvalidRequest("a demand needs a limit with a kind and a meter", param="demands")
    _check_text("demands", limit.name, MAX_NAME_CHARS)
    return f"{limit.kind.name}/{limit.meter.name}/".lower() + limit.name


def _check_text(param: str, text: str, most_chars: int) -> None:
    if not 0 < len(text) <= most_chars:
        raise InvalidRequest(f"a name has {len(text)} characters; 1 to {most_chars} are allowed", param=param)
    if _UNKEEPABLE.search(text):
        raise InvalidRequest("a name has a character that cannot be kept", param=param)
