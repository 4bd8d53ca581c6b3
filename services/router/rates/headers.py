"""What clients are told of their limits: OpenAI's `x-ratelimit-*`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from gen.rpc import Metadata
from services.router.rates.balance import Slice

_NAMES: Final = {
    unit: tuple(f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset"))
    for unit in ("requests", "tokens")
}
_MS_PER_S: Final = 1_000
_S_PER_MINUTE: Final = 60
_MINUTES_PER_HOUR: Final = 60


def ratelimit_headers(slices: Iterable[Slice], now_s: float) -> Metadata:
    """Limit, remaining and reset of requests and of tokens, each of the limit of which the least share is left.

    Empty for limits of other meters.
    """
    tightest: dict[str, tuple[float, int, Slice]] = {}
    for held in slices:
        unit, total = held.unit, held.total
        if not (unit and total):
            continue
        remaining = min(held.remaining(now_s), total)
        left = remaining / total
        known = tightest.get(unit)
        if known is None or left < known[0]:
            tightest[unit] = (left, remaining, held)
    told: list[tuple[str, str]] = []
    for unit, (_, remaining, held) in tightest.items():
        limit, rest, reset = _NAMES[unit]
        told += (limit, str(held.total)), (rest, str(remaining)), (reset, duration(held.reset_s(now_s)))
    return told


def duration(seconds: float) -> str:
    """As OpenAI writes times: `20ms`, `1s`, `6m0s`, `1h0m0s`; rounded up."""
    if seconds < 1:
        return f"{math.ceil(seconds * _MS_PER_S)}ms" if seconds > 0 else "0s"
    minutes, rest = divmod(math.ceil(seconds), _S_PER_MINUTE)
    if not minutes:
        return f"{rest}s"
    hours, minutes = divmod(minutes, _MINUTES_PER_HOUR)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
