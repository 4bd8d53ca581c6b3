"""What one attempt costs: exact integers, one rounding per entry."""

from __future__ import annotations

from dataclasses import dataclass

MAX_TOKENS = 10**9
"""Of one count in one entry. With MAX_RATE it keeps every cost within a signed 64-bit integer."""
MAX_RATE = 10**15
"""Nano-USD per million tokens: a million US dollars."""
_TOKENS_PER_RATE = 1_000_000


@dataclass(frozen=True, slots=True)
class Rates:
    """Nano-USD (10^-9 US dollars) per million tokens."""

    input: int
    cached_input: int
    output: int

    def __post_init__(self) -> None:
        for name in ("input", "cached_input", "output"):
            if not 0 <= getattr(self, name) <= MAX_RATE:
                raise ValueError(f"{name}: a rate is 0 to {MAX_RATE} nano-USD per million tokens")


def cost_nano_usd(rates: Rates, *, input_tokens: int, cached_input_tokens: int, output_tokens: int) -> int:
    """The cost of one attempt in nano-USD, rounded half to even once, over the exact sum.

    `cached_input_tokens` are among `input_tokens`. A provider that reports more cached tokens than tokens is
    charged by its cached ones alone: no part of a cost is ever negative.
    """
    uncached = max(0, input_tokens - cached_input_tokens)
    exact = uncached * rates.input + cached_input_tokens * rates.cached_input + output_tokens * rates.output
    return _divide_half_even(exact, _TOKENS_PER_RATE)


def _divide_half_even(dividend: int, divisor: int) -> int:
    quotient, rest = divmod(dividend, divisor)
    round_up = 2 * rest > divisor or (2 * rest == divisor and quotient % 2 == 1)
    return quotient + round_up
