"""The limits of one holder, and what it says to Auth: a state machine without clocks and calls of its own."""

from __future__ import annotations

from typing import Final

from gen.weir.auth.v1 import LeaseRateRequest, LeaseRateResponse
from meshkit.errors import UpstreamError
from services.router.rates.balance import Lease, Slice, slice_of
from services.router.rates.subjects import Limit

MAX_NAMED: Final = 1_000
"""Limits that one holder may name at once: Auth takes no more."""
SAFE_SHARE: Final = 0.8
"""Of the time for which Auth says that its word holds: clocks run apart."""


class Book:
    """The limits that one holder has in use.

    Args:
        holder: a name that nobody else has or had.
        holders: how many there are, as far as is known before Auth says it.
        every_s: between two reports.
    """

    def __init__(self, holder: str, holders: int, every_s: float) -> None:
        self.lease = Lease(holders)
        self.slices: dict[str, Slice] = {}
        """By the limit's id."""
        self._holder = holder
        self._every_s = every_s
        self._forgotten: dict[str, int] = {}
        """Out of use, and Auth was not yet told: what was used of each in all, for that never falls till it is told."""
        self._left_out: list[str] = []
        """Those of them that the present call no longer names."""
        self._asked: list[tuple[Slice, int]] = []
        """What the present call is about: each slice, and how much is wanted of it."""

    @property
    def is_full(self) -> bool:
        """Whether it may name no more limits."""
        return len(self.slices) >= MAX_NAMED

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to tell and nothing to keep."""
        return not (self.slices or self._forgotten)

    def open(self, limit: Limit) -> Slice:
        """Begins to use a limit."""
        used_total = self._forgotten.get(limit.id, 0)
        held = self.slices[limit.id] = slice_of(limit, self.lease, used_total, self._every_s)
        return held

    def request(self, now_s: float) -> LeaseRateRequest:
        """What to ask now. The answer is told to `granted`, its absence to `failed`, before the next request."""
        for limit_id in self.slices.keys() & self._forgotten.keys():
            del self._forgotten[limit_id]
        demands = [held.demand(now_s) for held in self.slices.values()]
        wanted = [demand.wanted for demand in demands]
        self._asked = list(zip(self.slices.values(), wanted, strict=True))
        self._left_out = list(self._forgotten)
        return LeaseRateRequest(holder=self._holder, demands=demands)

    def granted(self, response: LeaseRateResponse, begun_s: float, now_s: float) -> list[str]:
        """Takes the answer to the request that was begun at `begun_s`; the ids of limits that are out of use now.

        Raises UpstreamError where it is none.
        """
        if len(response.grants) != len(self._asked):
            raise UpstreamError("auth answered about other limits than it was asked about")
        for (held, wanted), grant in zip(self._asked, response.grants, strict=True):
            held.granted(wanted, grant, now_s)
        for limit_id in self._left_out:
            self._told_off(limit_id)
        good_s = 0.0 if response.good_for is None else response.good_for.total_seconds()
        self.lease.good_until_s = begun_s + SAFE_SHARE * good_s
        self.lease.holders = max(1, response.holders)
        self.lease.away = False
        return self._forget(now_s)

    def failed(self) -> None:
        """Auth did not answer. Whether it heard the request is not known; the next one says what is held."""
        self.lease.away = True

    def renew(self, holder: str) -> None:
        """Begins anew under another name, for Auth takes nothing more under this one."""
        self._holder = holder
        self._forgotten.clear()
        for held in self.slices.values():
            held.begin_anew()
            held.at_hand = 0  # Auth counts it as that of the former name

    def give_back(self) -> None:
        """Wants nothing any more: the next request gives back all that is at hand."""
        for held in self.slices.values():
            held.retire()

    def _told_off(self, limit_id: str) -> None:
        """Auth has forgotten the limit; it may be in use again since the call was made."""
        self._forgotten.pop(limit_id, None)
        if limit_id in self.slices:
            self.slices[limit_id].begin_anew()

    def _forget(self, now_s: float) -> list[str]:
        done = [limit_id for limit_id, held in self.slices.items() if held.is_done(now_s)]
        for limit_id in done:
            self._forgotten[limit_id] = self.slices.pop(limit_id).used_total
        return done
