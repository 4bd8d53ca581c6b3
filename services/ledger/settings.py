"""Every knob of the ledger."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meshkit.settings import MeshSettings
from pricing.settings import PricesSettings

Seconds = Annotated[float, Field(gt=0, le=3_600)]


class LedgerBlock(PricesSettings):
    """The key `ledger` of weir.yaml."""

    pool_size: Annotated[int, Field(ge=1, le=100)] = 4
    """Connections to PostgreSQL at most: batches and reports at the same time."""
    checkout_timeout_s: Seconds = 5.0
    """Seconds to wait for one of them before the sender is told to come again."""
    statement_timeout_s: Seconds = 10.0
    """Seconds after which PostgreSQL gives up a batch or a report."""
    days_ahead: Annotated[int, Field(ge=0, le=366)] = 3
    """Days after today whose partitions are made in advance."""
    accept_past_days: Annotated[int, Field(ge=1, le=3_660)] = 400
    """Days before now in which an entry may have begun; an older one is refused."""
    accept_future_s: Annotated[float, Field(ge=0, le=86_400)] = 3_600.0
    """Seconds after now in which an entry may have begun: how far a router's clock may run ahead."""


class LedgerSettings(MeshSettings):
    """What the ledger reads of weir.yaml."""

    ledger: LedgerBlock = LedgerBlock()
