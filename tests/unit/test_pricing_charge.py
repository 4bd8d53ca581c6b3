"""PriceList.charge: the one place where usage and price become nano-USD."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from gen.weir.type.v1 import Locality, Target, Usage
from pricing.cost import MAX_RATE, MAX_TOKENS, Rates
from pricing.price_list import Charge, Price, PriceList, Side
from services.ledger.domain.entry import Fault, Span, sound
from tests.fakes.ledger import an_entry

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RATES = Rates(input=2_500_000_000, cached_input=1_250_000_000, output=10_000_000_000)
FREE = Rates(input=0, cached_input=0, output=0)
PRICES = PriceList([
    Price("list", Side.CLOUD, "openai", "o4", date(2025, 1, 1), "test", RATES),
    Price("flat", Side.LOCAL, "triton", "*", date(2025, 1, 1), "test", FREE),
    Price("sandbox", Side.SANDBOX, "*", "*", date(2025, 1, 1), "test", FREE),
])  # fmt: skip
WIDE = Span(past=timedelta(days=1), future=timedelta(days=1))
CLOUD = Target(name="cloud", locality=Locality.CLOUD, provider="openai", model="o4")


def test_usage_is_charged_by_the_targets_price() -> None:
    """Cached tokens at their own rate, and the price's version beside the cost."""
    usage = Usage(input_tokens=1_000, cached_input_tokens=200, output_tokens=500)
    assert PRICES.charge(CLOUD, usage, NOON) == Charge(7_250_000, "list")


@pytest.mark.parametrize("reasoning", [None, 0, 300, 500])
def test_thinking_is_not_charged_twice(reasoning: int | None) -> None:
    """Reasoning tokens are part of the output tokens: telling them apart changes no cost."""
    usage = Usage(output_tokens=500, reasoning_output_tokens=reasoning)
    assert PRICES.charge(CLOUD, usage, NOON) == Charge(5_000_000, "list")


def test_an_estimate_costs_as_much_as_a_count() -> None:
    """That a count is an estimate says how sure it is, not what it costs."""
    counted = Usage(input_tokens=10, output_tokens=20)
    estimated = Usage(input_tokens=10, output_tokens=20, estimated=True)
    assert (
        PRICES.charge(CLOUD, estimated, NOON)
        == PRICES.charge(CLOUD, counted, NOON)
        == Charge(225_000, "list")
    )


def test_nothing_used_costs_nothing_where_there_is_a_price() -> None:
    """Zero and unknown are told apart."""
    assert PRICES.charge(CLOUD, Usage(), NOON) == Charge(0, "list")
    assert PRICES.charge(Target(locality=Locality.CLOUD, provider="other", model="x"), Usage(), NOON) is None


@pytest.mark.parametrize(
    ("target", "version"),
    [
        (Target(locality=Locality.LOCAL, provider="triton", model="any"), "flat"),
        (Target(locality=Locality.CLOUD, provider="openai", model="o4", sandbox=True), "sandbox"),
        (Target(locality=Locality.LOCAL, provider="triton", model="any", sandbox=True), "sandbox"),
        (Target(provider="openai", model="o4"), "list"),
        (Target(provider="triton", model="any"), None),
        (Target(locality=Locality.LOCAL, provider="openai", model="o4"), None),
        (Target(), None),
    ],
)
def test_a_target_is_charged_on_its_own_side(target: Target, version: str | None) -> None:
    """A sandbox before its locality; an unspecified locality counts as cloud; no price of another side is lent."""
    charge = PRICES.charge(target, Usage(input_tokens=1), NOON)
    assert (None if charge is None else charge.price_version) == version


def test_prices_change_at_midnight_utc_of_the_day_it_began() -> None:
    """Whatever zone the time is told in."""
    prices = PriceList([
        Price("old", Side.CLOUD, "openai", "o4", date(2026, 1, 1), "test", FREE),
        Price("new", Side.CLOUD, "openai", "o4", date(2026, 3, 1), "test", RATES),
    ])  # fmt: skip
    east = timezone(timedelta(hours=9))
    for at, version in (
        (datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC), "old"),
        (datetime(2026, 3, 1, tzinfo=UTC), "new"),
        (datetime(2026, 3, 1, 8, 59, tzinfo=east), "old"),
        (datetime(2026, 3, 1, 9, tzinfo=east), "new"),
    ):
        charge, price = prices.charge(CLOUD, Usage(), at), prices.price_of(CLOUD, at)
        assert charge is not None
        assert price is not None
        assert charge.price_version == price.version == version


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=MAX_TOKENS + 1),
        Usage(output_tokens=2**64 - 1),
        Usage(cached_input_tokens=MAX_TOKENS + 1),
    ],
)
def test_what_the_ledger_refuses_has_no_cost(usage: Usage) -> None:
    """A provider's nonsense is shown as unknown, exactly where the ledger does not take it."""
    entry = an_entry(usage=usage, begun_at=NOON)
    assert isinstance(sound(entry, NOON, WIDE), Fault)
    assert PRICES.charge(CLOUD, usage, NOON) is None


def test_the_largest_cost_fits_the_contract() -> None:
    """cost_nano_usd is a signed 64-bit integer; the ledger takes the same usage."""
    dearest = Rates(input=MAX_RATE, cached_input=MAX_RATE, output=MAX_RATE)
    prices = PriceList([Price("dear", Side.CLOUD, "*", "*", date(2025, 1, 1), "test", dearest)])
    usage = Usage(input_tokens=0, cached_input_tokens=MAX_TOKENS, output_tokens=MAX_TOKENS)
    assert not isinstance(sound(an_entry(usage=usage, begun_at=NOON), NOON, WIDE), Fault)
    charge = prices.charge(CLOUD, usage, NOON)
    assert charge is not None
    assert charge.nano_usd == 2 * 10**18
    assert charge.nano_usd < 2**63
