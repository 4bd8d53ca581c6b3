"""Which price holds for a target on a day."""

from datetime import date

from pricing.cost import Rates
from pricing.price_list import Price, PriceList, Side

DAY = date(2026, 3, 1)


def _price(version: str, provider: str, model: str, effective: date = date(2025, 1, 1)) -> Price:
    rates = Rates(input=1, cached_input=1, output=1)
    return Price(version, Side.CLOUD, provider, model, effective, "test", rates)


def _version(prices: list[Price], provider: str, model: str, day: date = DAY) -> str | None:
    # Both orders of the list: the file's order must not matter.
    found = {PriceList(order).price(Side.CLOUD, provider, model, day) for order in (prices, prices[::-1])}
    (price,) = found
    return None if price is None else price.version


def test_the_most_exact_price_holds() -> None:
    """Exact names before prefixes, longer prefixes before shorter, the provider before the model."""
    prices = [
        _price("any", "*", "*"),
        _price("family", "openai", "gpt-4o*"),
        _price("wide", "openai", "gpt*"),
        _price("exact", "openai", "gpt-4o"),
        _price("exact-elsewhere", "open*", "gpt-4o-mini"),
    ]
    assert _version(prices, "openai", "gpt-4o") == "exact"
    assert _version(prices, "openai", "gpt-4o-mini") == "family"
    assert _version(prices, "openai", "gpt-5") == "wide"
    assert _version(prices, "openrouter", "gpt-4o-mini") == "exact-elsewhere"
    assert _version(prices, "azure", "gpt-4o") == "any"


def test_a_price_holds_from_its_day() -> None:
    """The last price that took effect holds; before the first there is none."""
    prices = [_price("old", "p", "m", date(2025, 1, 1)), _price("new", "p", "m", date(2026, 1, 1))]
    assert _version(prices, "p", "m", date(2024, 12, 31)) is None
    assert _version(prices, "p", "m", date(2025, 12, 31)) == "old"
    assert _version(prices, "p", "m", date(2026, 1, 1)) == "new"


def test_a_wider_price_holds_until_the_exact_one_takes_effect() -> None:
    """A price of the future hides nothing."""
    prices = [_price("family", "p", "m*"), _price("exact", "p", "m1", date(2026, 6, 1))]
    assert _version(prices, "p", "m1") == "family"


def test_an_unknown_model_has_no_price() -> None:
    """No prefix is guessed: gpt-4o's price is not that of gpt-4o-audio."""
    assert _version([_price("exact", "openai", "gpt-4o")], "openai", "gpt-4o-audio") is None
