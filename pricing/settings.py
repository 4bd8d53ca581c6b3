"""Where the price list lies: one key of weir.yaml, `ledger.prices_file`, read by whoever needs prices."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict

from meshkit.settings import Strict

_ROOT = Path(__file__).resolve().parents[1]


class PricesSettings(Strict):
    """The part of the key `ledger` that says what models cost; the ledger's own block is derived from it."""

    prices_file: Path = _ROOT / "prices.yaml"
    """What models cost; by default the project's own. A relative path starts at the working directory."""


class LedgerPrices(PricesSettings):
    """The key `ledger` as a service other than the ledger reads it.

    The ledger's other keys are left unread, for the ledger to check: `ledger: LedgerPrices = LedgerPrices()`.
    """

    model_config = ConfigDict(extra="ignore")
