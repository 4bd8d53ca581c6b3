"""What this router has of one limit: pure counting, no clocks and no calls."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Final

from typing_extensions import override

from gen.weir.auth.v1 import Meter, RateDemand, RateGrant, RateLimit
from services.router.rates.recent import WINDOW_S, Recent
from services.router.rates.subjects import Limit

IDLE_S: Final = 1.0
"""A limit that nobody asked for in so long is given back as a whole."""
REFUSED_S: Final = (0.1, 0.25)
"""How long it is remembered at least and at most that Auth has no more: a flood shall not cost it many calls."""
MOST_USED: Final = 10**12
"""Tokens that one request may have used: as much as the largest limit. A provider that counts more is mad, and Auth
takes no total beyond its bounds: not this limit's alone would be reported no more."""
_SPARE: Final = 1.25
"""Of what was asked for lately, so much is kept at hand for the time to come."""


class Lease:
    """What all limits of one holder have in common: until when Auth's word holds."""

    __slots__ = ("away", "good_until_s", "holders")

    def __init__(self, holders: int) -> None:
        self.good_until_s = -math.inf
        """What is at hand may be spent until then, on the monotonic clock."""
        self.holders = holders
        """How many share every limit, this one included."""
        self.away = False
        """Whether Auth did not answer when it was last asked."""


class Slice(ABC):
    """One limit's units: at hand, in requests that run, used.

    Args:
        used_total: what this holder had reported of it before.
        every_s: between two reports; what was asked for in one such time is expected of the next.
    """

    __slots__ = (
        "_asked", "_asked_before", "_every_s", "_refused", "_refused_before", "_reset_s", "_retry_s", "_rolled_s",
        "_short_until_s", "_told", "at_hand", "free", "is_deferred", "last_s", "lease", "limit", "pending",
        "recent", "reported", "running", "total", "used_total",
    )  # fmt: skip

    unit: ClassVar[str] = ""
    """As clients are told of it; empty where they are not."""

    def __init__(self, limit: Limit, lease: Lease, used_total: int, every_s: float) -> None:
        self.limit = limit
        self.lease = lease
        self.total = limit.total
        """The limit; 0 where Auth says that there is none."""
        self.at_hand = 0
        """Granted and free. Below 0 until the next report where more was used than was granted."""
        self.running = 0
        """In requests that run."""
        self.used_total = self.reported = self._told = used_total
        self.pending = 0
        """Wanted by requests that wait."""
        self.is_deferred = False
        """Whether Auth has more, and keeps it for others who asked before: until they were heard again."""
        self.free = 0
        """What Auth has left, when it was last asked."""
        self.last_s = -math.inf
        """When it was last asked for."""
        self.recent = Recent()
        self._every_s = every_s
        self._asked = self._asked_before = 0
        self._refused = self._refused_before = 0
        self._rolled_s = -math.inf
        self._short_until_s = self._retry_s = self._reset_s = -math.inf

    # What requests do.

    def units_of(self, tokens: int) -> int:
        """What a request takes that sets aside so many tokens."""
        del tokens
        return 1

    def has(self, units: int, now_s: float) -> bool:
        """Whether so many can be taken at once."""
        return (self.at_hand >= units and now_s < self.lease.good_until_s) or not self.total

    def take(self, units: int, now_s: float) -> bool:
        """A request begins with so many. Whether they are to be settled: False where there is no limit after all."""
        self.last_s = now_s
        if not self.total:
            return False
        self.at_hand -= units
        self._asked += units
        self._begin(units, now_s)
        return True

    def refuse(self, units: int, now_s: float) -> None:
        """A request would have liked so many."""
        self._refused += units
        self.last_s = now_s

    @abstractmethod
    def _begin(self, units: int, now_s: float) -> None:
        """Counts what was taken."""

    @abstractmethod
    def settle(self, taken: int, used: int, now_s: float) -> None:
        """The request that took so many ended, and used so many tokens."""

    def is_short(self, now_s: float) -> bool:
        """Whether Auth said a moment ago that it has no more."""
        return now_s < self._short_until_s

    def begin_anew(self) -> None:
        """Auth no longer knows what was reported: it counts from 0."""
        self.used_total -= self.reported
        self.reported = self._told = 0

    def retire(self) -> None:
        """Nobody will ask for it any more."""
        self.last_s = -math.inf
        self.pending = 0

    # What a router may use by its own count while Auth is away.

    @property
    def share(self) -> int:
        """This holder's part of the limit: at least 1, so that no small limit shuts everybody out."""
        return max(1, self.total // self.lease.holders)

    def shares(self, units: int, now_s: float) -> bool:
        """Whether so many more keep within the part."""
        return self._counted(now_s) + units <= self.share

    def _counted(self, now_s: float) -> int:
        return self.recent.units(now_s) + self.running

    # What clients are told.

    def remaining(self, now_s: float) -> int:
        """Units that are left for requests to come, as far as is known here."""
        if self.lease.away:
            return max(0, self.share - self._counted(now_s))
        return max(0, self.free + self.at_hand)

    def reset_s(self, now_s: float) -> float:
        """Until all are left again if nobody asks for anything."""
        if self.lease.away:
            return self.recent.frees_in_s(now_s, self.total or 1)
        # What was used since Auth was asked leaves the window last.
        return float(WINDOW_S) if self.used_total > self._told else max(0.0, self._reset_s - now_s)

    def retry_after_s(self, units: int, now_s: float) -> float:
        """Until it is worth while to ask for so many again."""
        if self.lease.away:
            return self.recent.frees_in_s(now_s, max(1, self._counted(now_s) + units - self.share))
        return max(0.0, self._retry_s - now_s)

    # What is said to Auth, and what it says.

    def demand(self, now_s: float) -> RateDemand:
        """The report; what it gives back is given up at once."""
        self._roll(now_s)
        idle = now_s - self.last_s >= IDLE_S
        need = self.pending + (0 if idle else self._need())
        # What was used beyond what was granted is told as used, and so is settled.
        self.at_hand = max(self.at_hand, 0)
        if not self.lease.away:  # else it may be all that there is for a while
            self.at_hand = min(self.at_hand, need + (0 if idle else self._kept()))
        self._told = self.used_total
        limit = self.limit
        return RateDemand(
            limit=RateLimit(kind=limit.kind, name=limit.name, meter=limit.meter),
            used_total=self.used_total,
            held=self.at_hand + self.running,
            wanted=max(0, min(need, self.total) - self.at_hand),
        )

    def granted(self, wanted: int, grant: RateGrant, now_s: float) -> None:
        """Takes what Auth grants upon the last demand."""
        self.reported = self._told
        self.total, self.free = grant.total, grant.free
        self.at_hand += grant.granted
        self._reset_s = now_s + (0.0 if grant.reset is None else grant.reset.total_seconds())
        self._short_until_s = -math.inf
        self.is_deferred = grant.granted < wanted and grant.retry_after is None
        if self.is_deferred:
            self._retry_s = now_s + self._every_s
        elif grant.granted < wanted and grant.retry_after is not None:
            retry_s = grant.retry_after.total_seconds()
            self._retry_s = now_s + retry_s
            least_s, most_s = REFUSED_S
            self._short_until_s = now_s + min(max(retry_s, least_s), most_s)

    def is_done(self, now_s: float) -> bool:
        """Whether nothing is held, everything is reported and nobody asks."""
        return (
            now_s - self.last_s >= IDLE_S
            and not (self.running or self.pending)
            and self.at_hand <= 0
            and self.used_total == self.reported
        )

    @property
    def _lately(self) -> int:
        return max(self._asked, self._asked_before)

    @property
    def _refused_lately(self) -> int:
        return max(self._refused, self._refused_before)

    def _need(self) -> int:
        """Beyond what waits: what the last interval asked for, or half of the one before, and a little more."""
        return math.ceil(_SPARE * (self._lately + self._refused_lately))

    def _kept(self) -> int:
        """Of what is at hand, beyond what is needed."""
        return 0

    def _roll(self, now_s: float) -> None:
        if now_s - self._rolled_s < self._every_s:
            return  # a report in between, for somebody waits
        self._asked_before, self._asked = max(self._asked, self._asked_before // 2), 0
        self._refused_before, self._refused = self._refused, 0
        self._rolled_s = now_s


class RequestSlice(Slice):
    """Requests: used when they begin."""

    __slots__ = ()
    unit = "requests"

    @override
    def _begin(self, units: int, now_s: float) -> None:
        self.used_total += units
        self.recent.add(now_s, units)

    @override
    def settle(self, taken: int, used: int, now_s: float) -> None:
        """Nothing comes back."""


class TokenSlice(Slice):
    """Tokens: set aside when a request begins, used when it ends."""

    __slots__ = ()
    unit = "tokens"

    @override
    def units_of(self, tokens: int) -> int:
        """All of them, but never more than the limit: else the request could never begin."""
        return max(1, min(tokens, self.total))

    @override
    def _begin(self, units: int, now_s: float) -> None:
        self.running += units

    @override
    def settle(self, taken: int, used: int, now_s: float) -> None:
        """What was not used is at hand again; what was used beyond it is booked."""
        used = min(max(used, 0), MOST_USED)
        self.running -= taken
        self.at_hand += taken - used
        self.used_total += used
        self.recent.add(now_s, used)


class SlotSlice(Slice):
    """Requests at the same time: never used up."""

    __slots__ = ()

    @override
    def _begin(self, units: int, now_s: float) -> None:
        self.running += units

    @override
    def settle(self, taken: int, used: int, now_s: float) -> None:
        """The slot is free."""
        self.running -= taken
        self.at_hand += taken

    @override
    def _need(self) -> int:
        """Exactly what was missing: a slot that nobody uses is one that somebody else could."""
        return self._refused_lately

    @override
    def _kept(self) -> int:
        """Slots that were free for less than an interval."""
        return self._lately


_KINDS: Final[dict[Meter, type[Slice]]] = {
    Meter.REQUESTS: RequestSlice,
    Meter.TOKENS: TokenSlice,
    Meter.CONCURRENT: SlotSlice,
}


def slice_of(limit: Limit, lease: Lease, used_total: int, every_s: float) -> Slice:
    """An empty slice of a limit."""
    return _KINDS[limit.meter](limit, lease, used_total, every_s)
