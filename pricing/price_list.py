"""Which price holds for a target on a day, and what an attempt costs by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from functools import lru_cache

from gen.weir.type.v1 import Locality, Target, Usage
from pricing.cost import MAX_TOKENS, Rates, cost_nano_usd

_REMEMBERED = 4_096
"""Look-ups kept: (targets) x (days), both few."""


class Side(Enum):
    """Where a target stands, as far as money goes. A price holds on one side only."""

    LOCAL = "local"
    """Our own hardware."""
    CLOUD = "cloud"
    """A provider that sends a bill."""
    SANDBOX = "sandbox"
    """A stand-in on loopback that answers in place of a provider; it costs nothing really."""


@dataclass(frozen=True, slots=True)
class Price:
    """One price of one model or family of models, from a day on.

    `provider` and `model` are exact names, or a prefix followed by `*`.
    """

    version: str
    side: Side
    provider: str
    model: str
    effective: date
    source: str
    rates: Rates

    def covers(self, side: Side, provider: str, model: str, day: date) -> bool:
        """Whether this price may hold for the target on that day (UTC)."""
        return (
            self.side is side
            and self.effective <= day
            and _matches(self.provider, provider)
            and _matches(self.model, model)
        )

    @property
    def precedence(self) -> tuple[tuple[bool, int], tuple[bool, int], int]:
        """Of all prices that cover a target the highest in this order holds.

        Exact before prefix, longer prefix before shorter, the provider before the model, and of the same names the
        one that took effect last.
        """
        return _exactness(self.provider), _exactness(self.model), self.effective.toordinal()


@dataclass(frozen=True, slots=True)
class Charge:
    """What an attempt costs, and by which price."""

    nano_usd: int
    price_version: str


def side_of(target: Target) -> Side:
    """An unspecified locality counts as cloud: what may have cost money is never taken for free."""
    if target.sandbox:
        return Side.SANDBOX
    return Side.LOCAL if target.locality == Locality.LOCAL else Side.CLOUD


class PriceList:
    """Every price we know."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._prices = tuple(sorted(prices, key=lambda price: price.precedence, reverse=True))
        self._remembered = lru_cache(_REMEMBERED)(self._find)

    def price(self, side: Side, provider: str, model: str, day: date) -> Price | None:
        """The price that holds for a target on a day (UTC); None if there is none."""
        return self._remembered(side, provider, model, day)

    def price_of(self, target: Target, at: datetime) -> Price | None:
        """The price that holds for a target at a time, which has a time zone; prices change at midnight UTC."""
        return self.price(side_of(target), target.provider, target.model, at.astimezone(UTC).date())

    def charge(self, target: Target, usage: Usage, begun_at: datetime) -> Charge | None:
        """What an attempt costs that began at `begun_at` (with its time zone) and used `usage`, estimated or not.

        None if its cost is unknown, which is not zero: the target has no price, or a count is over MAX_TOKENS, which
        the ledger refuses to record. Whoever shows or charges a cost takes it from here, so that all agree.
        """
        price = self.price_of(target, begun_at)
        cached = usage.cached_input_tokens or 0
        if price is None or max(usage.input_tokens, usage.output_tokens, cached) > MAX_TOKENS:
            return None
        # Thinking is not added: `reasoning_output_tokens` are among `output_tokens`.
        cost = cost_nano_usd(
            price.rates,
            input_tokens=usage.input_tokens,
            cached_input_tokens=cached,
            output_tokens=usage.output_tokens,
        )
        return Charge(cost, price.version)

    def _find(self, side: Side, provider: str, model: str, day: date) -> Price | None:
        return next((price for price in self._prices if price.covers(side, provider, model, day)), None)


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _exactness(pattern: str) -> tuple[bool, int]:
    return not pattern.endswith("*"), len(pattern)
