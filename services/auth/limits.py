"""How much a subject may do: a key's own limits, or the settings' for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gen.weir.auth.v1 import Key, Limits, Meter, RateLimit, RateSubjectKind
from meshkit.limit_settings import LimitsBlock, LimitSettings

ANY_OTHER: Final = "*"


class Totals:
    """Finds the total of a limit as it is now; 0 where there is none.

    Args:
        find_key: a key by its id, from the live key set.
        block: the settings' limits as they are now.
    """

    def __init__(self, find_key: Callable[[str], Key | None], block: Callable[[], LimitsBlock]) -> None:
        self._find_key = find_key
        self._block = block

    def __call__(self, limit: RateLimit) -> int:
        """The total. A key that is unknown here, as a JWT's holder always is, has what keys have by default."""
        block = self._block()
        match limit.kind:
            case RateSubjectKind.KEY:
                key = self._find_key(limit.name)
                own = None if key is None else key.limits
                return _of_settings(block.keys, limit.meter) if own is None else _of_key(own, limit.meter)
            case RateSubjectKind.TEAM:
                return _of_named(block.teams, limit)
            case RateSubjectKind.ORG:
                return _of_named(block.orgs, limit)
            case _:
                return _of_named(block.models, limit)


def _of_named(blocks: Mapping[str, LimitSettings], limit: RateLimit) -> int:
    found = blocks.get(limit.name, blocks.get(ANY_OTHER))
    return 0 if found is None else _of_settings(found, limit.meter)


def _of_settings(limits: LimitSettings, meter: Meter) -> int:
    match meter:
        case Meter.REQUESTS:
            return limits.requests_per_minute or 0
        case Meter.TOKENS:
            return limits.tokens_per_minute or 0
        case _:
            return limits.concurrent_requests or 0


def _of_key(limits: Limits, meter: Meter) -> int:
    match meter:
        case Meter.REQUESTS:
            return max(0, limits.requests_per_minute)
        case Meter.TOKENS:
            return max(0, limits.tokens_per_minute)
        case _:
            return max(0, limits.concurrent_requests)
