"""Where the price list lies: one key for the ledger and for whoever shows prices."""

from pathlib import Path
from typing import Any

import pytest

from meshkit.settings import MeshSettings, SettingsError, build
from pricing.prices_file import load_prices
from pricing.settings import LedgerPrices
from services.ledger.settings import LedgerSettings


class Reader(MeshSettings):
    """A service that shows prices and is not the ledger."""

    ledger: LedgerPrices = LedgerPrices()


@pytest.mark.parametrize(
    "document", [{}, {"ledger": {"pool_size": 2}}, {"ledger": {"prices_file": "mine.yaml", "days_ahead": 5}}]
)
def test_all_read_the_same_file(document: dict[str, Any]) -> None:
    """Named or by default, and whatever else the ledger's block holds."""
    reader, ledger = build(Reader, document, {}), build(LedgerSettings, document, {})
    named = document.get("ledger", {}).get("prices_file")
    assert reader.ledger.prices_file == ledger.ledger.prices_file
    assert named is None or reader.ledger.prices_file == Path(named)


def test_the_default_is_the_projects_own_list() -> None:
    """It is there, and it loads."""
    path = Reader().ledger.prices_file
    assert path == Path(__file__).resolve().parents[2] / "prices.yaml"
    load_prices(path)


def test_both_say_the_same_of_a_faulty_key() -> None:
    """So that `weir up`, which asks every model, says it once."""
    said = set()
    for model in (Reader, LedgerSettings):
        with pytest.raises(SettingsError) as refused:
            build(model, {"ledger": {"prices_file": 5}}, {})
        said.add(str(refused.value))
    (line,) = said
    assert line.startswith("ledger.prices_file: ")


def test_the_ledgers_other_keys_are_the_ledgers_to_check() -> None:
    """An unknown one is refused by the ledger, and only there."""
    document = {"ledger": {"price_file": "mine.yaml"}}
    with pytest.raises(SettingsError, match=r"ledger\.price_file"):
        build(LedgerSettings, document, {})
    build(Reader, document, {})
