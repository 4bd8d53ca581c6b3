"""How Auth checks requests to other services behind the gateway: the block `auth.checks`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from meshkit.settings import Strict

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class CheckSettings(Strict):
    """The block `auth.checks`."""

    max_stale_s: Seconds = 900.0
    """For so long known keys are honoured without a reading of the store, in seconds; then every one is looked up."""
    admin_max_stale_s: Seconds = 30.0
    """The same where the service asks for the scope `keys:write` or `admin`."""
    lookups_per_s: Annotated[float, Field(gt=0, le=100_000)] = 20.0
    """So many keys a second that the key set in memory lacks are looked up in the store; further ones get a 429."""
    lookups_burst: Annotated[int, Field(ge=1, le=100_000)] = 20
    """So many at once after a pause."""
    refused_for_s: Seconds = 5.0
    """How long it is remembered that the store does not know a key, in seconds."""
    remembered_refusals: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """How many such keys are remembered."""

    @property
    def refused_for(self) -> timedelta:
        """See refused_for_s."""
        return timedelta(seconds=self.refused_for_s)
