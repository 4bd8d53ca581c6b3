"""Knobs of the limits of requests and tokens: the key `router.rates`. The limits themselves are `auth.limits`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from meshkit.settings import Strict
from services.router.target_settings import Seconds


class RateSettings(Strict):
    """How the router leases slices of limits from Auth. What is good for one worker is good for all."""

    every_s: Annotated[float, Field(ge=0.05, le=1)] = 0.25
    """Between two reports to Auth while any limit is in use; also how long a refusal is remembered at most."""
    gap_s: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Between two calls to Auth at least, so that requests of many new keys share one."""
    wait_s: Seconds = 0.5
    """How long a request waits at most for what Auth grants."""
    exchange_s: Seconds = 2.0
    """How long Auth may take to answer before it counts as away."""
    assumed_output_tokens: Annotated[int, Field(ge=0, le=10**9)] = 1_000
    """Set aside for an answer whose request names no cap."""
    outage: Literal["share", "closed"] = "share"
    """Limited requests while Auth is away: `share` lets each worker go on with its part of every limit by its own
    count, `closed` refuses them."""
    max_limits: Annotated[int, Field(ge=1, le=10**6)] = 20_000
    """Limits in use at the same time at most, about 1 KB each; requests that would need more are refused."""
