"""The price list from its YAML file; prices.yaml at the project's root explains the format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, StrictInt, ValidationError, model_validator

from meshkit.settings import SettingsError, Strict
from pricing.cost import MAX_RATE, Rates
from pricing.price_list import Price, PriceList, Side

Rate = Annotated[StrictInt, Field(ge=0, le=MAX_RATE)]
Pattern = Annotated[str, Field(pattern=r"^[^*]*\*?$")]


class _Rates(Strict):
    input: Rate
    cached_input: Rate | None = None
    output: Rate


class _Price(Strict):
    version: Annotated[str, Field(min_length=1)]
    side: Side = Side.CLOUD
    provider: Pattern
    models: Annotated[list[Pattern], Field(min_length=1)]
    effective: date
    source: Annotated[str, Field(min_length=1)]
    nano_usd_per_million_tokens: _Rates

    def prices(self) -> Iterator[Price]:
        given = self.nano_usd_per_million_tokens
        cached = given.input if given.cached_input is None else given.cached_input
        rates = Rates(input=given.input, cached_input=cached, output=given.output)
        for model in self.models:
            yield Price(
                version=self.version,
                side=self.side,
                provider=self.provider,
                model=model,
                effective=self.effective,
                source=self.source,
                rates=rates,
            )


class _File(Strict):
    prices: list[_Price]

    @model_validator(mode="after")
    def _unambiguous(self) -> _File:
        """One version names one price, and never do two prices hold for the same names from the same day."""
        versions = Counter(price.version for price in self.prices)
        places = Counter(
            f"{price.side.value}/{price.provider}/{price.model} from {price.effective}"
            for listed in self.prices
            for price in listed.prices()
        )
        twice = [name for counter in (versions, places) for name, count in counter.items() if count > 1]
        if twice:
            raise ValueError(f"more than one price for {', '.join(twice)}")
        return self


def load_prices(path: Path) -> PriceList:
    """Reads the file. Raises SettingsError naming the file and each fault."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        listed = _File.model_validate(document).prices
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        faults = (f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise SettingsError("\n".join(faults)) from error
    return PriceList(price for entry in listed for price in entry.prices())
