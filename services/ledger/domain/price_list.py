"""Which price holds for a target on a day."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import Enum
from functools import lru_cache

from services.ledger.domain.cost import Rates

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


class PriceList:
    """Every price we know (services.ledger.ports.PriceBook)."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._prices = tuple(sorted(prices, key=lambda price: price.precedence, reverse=True))
        self._remembered = lru_cache(_REMEMBERED)(self._find)

    def price(self, side: Side, provider: str, model: str, day: date) -> Price | None:
        """The price that holds for a target on a day (UTC); None if there is none."""
        return self._remembered(side, provider, model, day)

    def _find(self, side: Side, provider: str, model: str, day: date) -> Price | None:
        return next((price for price in self._prices if price.covers(side, provider, model, day)), None)


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _exactness(pattern: str) -> tuple[bool, int]:
    return not pattern.endswith("*"), len(pattern)
