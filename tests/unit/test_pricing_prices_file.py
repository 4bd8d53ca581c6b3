"""prices.yaml: what is shipped, and what is refused."""

from datetime import date
from pathlib import Path

import pytest

from meshkit.settings import SettingsError
from pricing.cost import Rates
from pricing.price_list import PriceList, Side
from pricing.prices_file import load_prices
from pricing.settings import PricesSettings

DAY = date(2026, 3, 1)


def test_sides_do_not_lend_each_other_prices() -> None:
    """A provider that happens to be called triton is not free of charge."""
    shipped = load_prices(PricesSettings().prices_file)
    assert shipped.price(Side.LOCAL, "triton", "anything", DAY) is not None
    assert shipped.price(Side.CLOUD, "triton", "anything", DAY) is None


def test_the_shipped_list_prices_what_it_should() -> None:
    """prices.yaml loads; local and sandbox are zero by an entry of their own, well-known models cost something."""
    shipped = load_prices(PricesSettings().prices_file)
    zero = Rates(input=0, cached_input=0, output=0)
    for side, provider in ((Side.LOCAL, "triton"), (Side.SANDBOX, "sandbox"), (Side.SANDBOX, "openai")):
        price = shipped.price(side, provider, "smollm2", DAY)
        assert price is not None
        assert price.rates == zero
    mini = shipped.price(Side.CLOUD, "openai", "gpt-4o-mini", DAY)
    assert mini is not None
    assert mini.rates == Rates(input=150_000_000, cached_input=75_000_000, output=600_000_000)


GOOD = """
prices:
  - version: v1
    provider: openai
    models: [a, b*]
    effective: 2025-01-01
    source: a test
    nano_usd_per_million_tokens: {input: 1_000, output: 2_000}
"""


def _load(folder: Path, text: str) -> PriceList:
    path = folder / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    return load_prices(path)


def test_cached_tokens_cost_as_others_where_the_file_does_not_say(tmp_path: Path) -> None:
    """Without `cached_input` there is no discount."""
    price = _load(tmp_path, GOOD).price(Side.CLOUD, "openai", "b-2", DAY)
    assert price is not None
    assert price.rates == Rates(input=1_000, cached_input=1_000, output=2_000)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("input: 1_000", "input: 0.15", "prices.0.nano_usd_per_million_tokens.input"),
        ("input: 1_000", "input: -1", "prices.0.nano_usd_per_million_tokens.input"),
        ("input: 1_000", "input: true", "prices.0.nano_usd_per_million_tokens.input"),
        ("output: 2_000", "output: 1_000_000_000_000_001", "prices.0.nano_usd_per_million_tokens.output"),
        (", output: 2_000", "", "prices.0.nano_usd_per_million_tokens.output"),
        ("    effective: 2025-01-01\n", "", "prices.0.effective"),
        ("    source: a test\n", "", "prices.0.source"),
        ("models: [a, b*]", "models: []", "prices.0.models"),
        ("models: [a, b*]", "models: [a*b]", "prices.0.models.0"),
        ("models: [a, b*]", "models: [a, a]", "more than one price for cloud/openai/a from 2025-01-01"),
        ("version: v1", "version: v1\n    currency: EUR", "prices.0.currency"),
        ("prices:", "prices: [", "not YAML"),
        (GOOD, "", "valid dictionary"),
        (GOOD, GOOD + GOOD.partition("prices:\n")[2].replace("[a, b*]", "[c]"), "more than one price for v1"),
    ],
)
def test_a_faulty_file_is_refused_by_name_and_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    """The message names the file and the fault."""
    assert old in GOOD
    with pytest.raises(SettingsError) as refused:
        _load(tmp_path, GOOD.replace(old, new))
    assert said in str(refused.value)
    assert "prices.yaml" in str(refused.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    """The message names the path and what is wrong with it."""
    with pytest.raises(SettingsError, match=r"none\.yaml: No such file"):
        load_prices(tmp_path / "none.yaml")
