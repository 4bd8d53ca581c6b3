"""Every knob of the ledger."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from meshkit.settings import MeshSettings
from pricing.settings import PricesSettings

LIVE: Final = frozenset({"ledger.prices_file"})
"""What a running ledger takes over when weir.yaml changes; everything else needs a restart."""

Seconds = Annotated[float, Field(gt=0, le=3_600)]


class LedgerBlock(PricesSettings):
    """The key `ledger` of weir.yaml."""

    pool_size: Annotated[int, Field(ge=1, le=100)] = 4
    """Connections to PostgreSQL at most: batches and reports at the same time."""
    checkout_timeout_s: Seconds = 5.0
    """Seconds to wait for one of them before the sender is told to come again."""
    statement_timeout_s: Seconds = 10.0
    """Seconds after which PostgreSQL gives up a batch or a report."""
    auth_ask_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds that Auth may take to say whose key asks for a report."""
    key_memory_s: Annotated[float, Field(ge=0, le=5)] = 0.5
    """Seconds that Auth's answer is remembered, so that the reports of one page ask it once; for as long a key that
    was revoked meanwhile may go on asking."""
    keys_remembered: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Such answers at most; about 1 KB each."""
    days_ahead: Annotated[int, Field(ge=0, le=366)] = 3
    """Days after today whose partitions are made in advance."""
    accept_past_days: Annotated[int, Field(ge=1, le=3_660)] = 400
    """Days before now in which an entry may have begun; an older one is refused."""
    accept_future_s: Annotated[float, Field(ge=0, le=86_400)] = 3_600.0
    """Seconds after now in which an entry may have begun: how far a router's clock may run ahead."""


class LedgerSettings(MeshSettings):
    """What the ledger reads of weir.yaml."""

    ledger: LedgerBlock = LedgerBlock()
