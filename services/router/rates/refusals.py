"""What a client is told whose request does not keep within a limit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from gen.weir.auth.v1 import Meter
from meshkit.errors import ContextTooLong, RateLimited
from services.router.rates.balance import Slice
from services.router.rates.headers import duration, ratelimit_headers
from services.router.rates.subjects import ContextLimit

_UNITS: Final = {
    Meter.REQUESTS: "requests per minute",
    Meter.TOKENS: "tokens per minute",
    Meter.CONCURRENT: "requests at the same time",
}

Need = tuple[Slice, int]
"""A slice, and what a request takes of it."""


class OverLimit(RateLimited):
    """A limit of Weir's own: a target's RateLimited is nothing that the caller is refused for."""


def used_up(need: Need, all_needs: Sequence[Need], now_s: float) -> OverLimit:
    """The error for a limit of which too little is left."""
    held, units = need
    takes = f", and this request may take {units}" if held.limit.meter is Meter.TOKENS else ""
    retry_s = held.retry_after_s(units, now_s)
    return _limited(
        f"{_named(held)} is used up{takes}; try again in {duration(retry_s)}", retry_s, all_needs, now_s
    )


def not_in_time(need: Need, all_needs: Sequence[Need], retry_s: float, now_s: float) -> OverLimit:
    """The error for a limit of which it could not be learned in time what is left."""
    held, _ = need
    return _limited(f"{_named(held)} could not be looked up in time; try again", retry_s, all_needs, now_s)


def too_long(limit: ContextLimit, prompt_tokens: int, output_tokens: int) -> ContextTooLong:
    """The error for a request over a limit of context."""
    asks = f" and asks for {output_tokens} more" if output_tokens else ""
    return ContextTooLong(
        f"the prompt has about {prompt_tokens} tokens{asks}: "
        f"over {limit.whose}'s limit of {limit.tokens} tokens in one request"
    )


def _named(held: Slice) -> str:
    return f"{held.limit.whose}'s limit of {held.total} {_UNITS[held.limit.meter]}"


def _limited(text: str, retry_s: float, all_needs: Sequence[Need], now_s: float) -> OverLimit:
    headers = ratelimit_headers([held for held, _ in all_needs], now_s)
    return OverLimit(
        text,
        retry_after=timedelta(seconds=retry_s),
        headers={name: str(value) for name, value in headers},
    )
