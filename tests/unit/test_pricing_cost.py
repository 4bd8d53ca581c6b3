"""What one attempt costs."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.cost import MAX_RATE, MAX_TOKENS, Rates, cost_nano_usd

tokens = st.integers(0, 2_000) | st.integers(0, MAX_TOKENS)
rate = st.integers(0, 2_000_000) | st.integers(0, MAX_RATE)
rates = st.builds(Rates, input=rate, cached_input=rate, output=rate)


@given(rates, tokens, tokens, tokens)
def test_a_cost_is_the_exact_sum_rounded_once_half_to_even(
    price: Rates, uncached: int, cached: int, output: int
) -> None:
    """Against exact rationals, whose round() is half to even."""
    exact = Fraction(uncached * price.input + cached * price.cached_input + output * price.output, 10**6)
    cost = cost_nano_usd(
        price, input_tokens=uncached + cached, cached_input_tokens=cached, output_tokens=output
    )
    assert cost == round(exact)


@given(rates, tokens, tokens, tokens)
def test_a_cost_fits_64_bits_and_is_never_negative(
    price: Rates, given_input: int, cached: int, output: int
) -> None:
    """Also where a provider reports more cached tokens than tokens."""
    cost = cost_nano_usd(price, input_tokens=given_input, cached_input_tokens=cached, output_tokens=output)
    assert 0 <= cost < 2**63


@pytest.mark.parametrize(
    ("output_tokens", "rate_of_output", "cost"),
    [(1, 499_999, 0), (1, 500_000, 0), (1, 500_001, 1), (3, 500_000, 2), (5, 500_000, 2), (1, 1_500_000, 2)],
)
def test_ties_go_to_the_even_neighbour(output_tokens: int, rate_of_output: int, cost: int) -> None:
    """0.5 becomes 0, 1.5 and 2.5 become 2."""
    price = Rates(input=0, cached_input=0, output=rate_of_output)
    assert cost_nano_usd(price, input_tokens=0, cached_input_tokens=0, output_tokens=output_tokens) == cost


def test_a_known_bill() -> None:
    """1,000 tokens in, 200 of them cached, 500 out, at 2.50, 1.25 and 10 US dollars a million: 0.00725 dollars."""
    price = Rates(input=2_500_000_000, cached_input=1_250_000_000, output=10_000_000_000)
    cost = cost_nano_usd(price, input_tokens=1_000, cached_input_tokens=200, output_tokens=500)
    assert cost == 2_000_000 + 250_000 + 5_000_000


def test_the_parts_are_not_rounded_apart() -> None:
    """Three parts of 0.4 nano-dollars make 1, not 0."""
    price = Rates(input=400_000, cached_input=400_000, output=400_000)
    assert cost_nano_usd(price, input_tokens=2, cached_input_tokens=1, output_tokens=1) == 1


@pytest.mark.parametrize("bad", [-1, MAX_RATE + 1])
def test_a_rate_has_bounds(bad: int) -> None:
    """A negative rate, or one whose costs would not fit, is no rate."""
    with pytest.raises(ValueError, match="cached_input"):
        Rates(input=0, cached_input=bad, output=0)
