"""What is used and what is held of one limit, over time.

A unit counts from its grant until it is given back or, once it was reported as used, for 60 seconds more. All times are
seconds of one clock, the store's; where that is set back, time stands still for as long as it was set back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, NamedTuple

from meshkit.errors import InvalidRequest

WINDOW_S: Final = 60
REMEMBERED_S: Final = 600
"""How long after its last word a holder's total is known, so that what it used by itself counts when it is back."""
FADE_S: Final = 5.0
"""What was granted counts as recent for about so long, when holders compete."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How one limit is counted."""

    total: int
    """Units; above 0."""
    slides: bool
    """Used units count for 60 s more; else they are free at once: requests at the same time."""
    good_for_s: float
    """A holder silent for longer has used all that it held."""
    retry_s: float
    """When to ask again where nobody knows when units come free."""


@dataclass(slots=True)
class Holding:
    """One holder of the limit, as of its last word."""

    heard_s: float
    seen: int = 0
    """All that it reported as used so far."""
    held: int = 0
    unmet: int = 0
    """Wanted and not granted."""
    recent: float = 0.0
    """Granted lately; fades."""


class Leaving(NamedTuple):
    """Units that count no more from then on."""

    at_s: float
    units: int


@dataclass(slots=True)
class Window:
    """One limit at the time `at_s`; changed in place."""

    at_s: float = 0.0
    used: dict[int, int] = field(default_factory=dict)
    """Units by the end of the second in which they were reported, in the order of time."""
    holdings: dict[str, Holding] = field(default_factory=dict)
    """By the holder's name."""
    void_s: float = 0.0
    """From then on it is as good as new, if nothing happens to it."""

    def advance(self, now_s: float, rule: Rule) -> None:
        """Lets time pass. Nothing of it is to be asked before."""
        if now_s < self.at_s:
            self._set_back(self.at_s - now_s)
        fade = math.exp((self.at_s - now_s) / FADE_S)
        self.at_s = now_s
        for end in list(takewhile(lambda end: end + WINDOW_S <= now_s, self.used)):
            del self.used[end]
        for name, holding in list(self.holdings.items()):
            holding.recent *= fade
            if _forgotten_s(holding, rule) <= now_s:
                del self.holdings[name]

    def report(self, holder: str, used_total: int, held: int, rule: Rule) -> Holding:
        """Takes a holder at its word. Raises InvalidRequest, and changes nothing, if its total fell."""
        holding = self.holdings.get(holder)
        if holding is None:
            # What it used before was counted then, or it gave the limit back: its total is where counting begins.
            holding = self.holdings[holder] = Holding(self.at_s, used_total)
            held = min(held, rule.total)
        used = self._used_since(holding, used_total, rule)
        if used and rule.slides:
            end = max(math.ceil(self.at_s), next(reversed(self.used), 0))
            self.used[end] = self.used.get(end, 0) + used
        holding.seen, holding.held, holding.heard_s = used_total, held, self.at_s
        return holding

    def give_back(self, holder: str) -> None:
        """Forgets a holder and frees what it held."""
        self.holdings.pop(holder, None)

    def free(self, rule: Rule) -> int:
        """Units that nobody holds and nobody used lately; below 0 where more was used than granted."""
        held = sum(one.held for one in self.holdings.values() if _counts_until_s(one, rule) > self.at_s)
        return rule.total - sum(self.used.values()) - held

    def leaving(self, rule: Rule) -> list[Leaving]:
        """What counts as used, the soonest to leave first."""
        used = [Leaving(end + WINDOW_S, units) for end, units in self.used.items()]
        lapsed = list(self._lapsed(rule))
        return sorted(used + lapsed) if lapsed else used

    def empty_s(self, rule: Rule) -> float:
        """When all of that has left."""
        last_s = next(reversed(self.used), -math.inf) + WINDOW_S
        return max([self.at_s, last_s, *(leaving.at_s for leaving in self._lapsed(rule))])

    def settle(self, rule: Rule) -> None:
        """Computes `void_s` anew."""
        ends = (_forgotten_s(holding, rule) for holding in self.holdings.values())
        self.void_s = max([self.empty_s(rule), *ends])

    def _lapsed(self, rule: Rule) -> Iterator[Leaving]:
        for holding in self.holdings.values():
            lapsed = holding.heard_s + rule.good_for_s <= self.at_s < _counts_until_s(holding, rule)
            if rule.slides and lapsed and holding.held:
                yield Leaving(_counts_until_s(holding, rule), holding.held)

    def _used_since(self, holding: Holding, used_total: int, rule: Rule) -> int:
        used = used_total - holding.seen
        if used < 0:
            raise InvalidRequest(f"used_total fell from {holding.seen} to {used_total}", param="demands")
        if self.at_s < _counts_until_s(holding, rule):
            return used
        # It went on by itself for long, all that it held then has left the window: the last minute's part of it.
        return math.ceil(used * WINDOW_S / (self.at_s - holding.heard_s))

    def _set_back(self, by_s: float) -> None:
        self.at_s -= by_s
        used: dict[int, int] = {}
        for end, units in self.used.items():
            earlier = math.ceil(end - by_s)
            used[earlier] = used.get(earlier, 0) + units
        self.used = used
        for holding in self.holdings.values():
            holding.heard_s -= by_s


def _counts_until_s(holding: Holding, rule: Rule) -> float:
    """When what a holder held counts no more if it stays silent."""
    lapses_s = holding.heard_s + rule.good_for_s
    return math.ceil(lapses_s) + WINDOW_S if rule.slides else lapses_s


def _forgotten_s(holding: Holding, rule: Rule) -> float:
    until_s = _counts_until_s(holding, rule)
    return max(until_s, holding.heard_s + REMEMBERED_S) if rule.slides else until_s
