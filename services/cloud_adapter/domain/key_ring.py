"""Which of a provider's keys a request takes: by weight, leaving alone those that the provider refused lately."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from typing import Final

_REFUSED = frozenset({401, 403})
_LIMITED = 429


@dataclass(frozen=True, slots=True)
class Rests:
    """How long a key is left alone."""

    refused: timedelta
    """After the provider refused it (HTTP 401 or 403)."""
    limited: timedelta
    """After the provider limited its rate (HTTP 429) without saying for how long."""


class KeyRing:
    """The keys of one provider, known by their places from 0.

    Args:
        weights: one for each key, above 0; at least one.
        rests: how long keys rest.
        random: evenly from [0, 1).
        monotonic_s: a clock in seconds that never goes back.
    """

    def __init__(
        self,
        weights: Sequence[float],
        rests: Rests,
        random: Callable[[], float],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._weights: Final = tuple(weights)
        self._rests = rests
        self._random = random
        self._monotonic_s = monotonic_s
        self._rested_at_s = [0.0] * len(self._weights)

    def choose(self) -> int:
        """One of those that do not rest, by weight; if all rest, the one whose rest ends first."""
        if len(self._weights) == 1:
            return 0
        now_s = self._monotonic_s()
        awake = [place for place, until_s in enumerate(self._rested_at_s) if until_s <= now_s]
        if not awake:
            return min(range(len(self._weights)), key=self._rested_at_s.__getitem__)
        sums = list(accumulate(self._weights[place] for place in awake))
        drawn = self._random() * sums[-1]
        return next((place for place, upto in zip(awake, sums, strict=True) if drawn < upto), awake[-1])

    def refused(self, place: int, status: int, retry_after: timedelta | None) -> timedelta | None:
        """The provider answered this key with `status`, which is no success. How long it rests, if it does."""
        rest = self._rest(status, retry_after) if len(self._weights) > 1 else None
        if rest is not None:
            until_s = self._monotonic_s() + rest.total_seconds()
            self._rested_at_s[place] = max(self._rested_at_s[place], until_s)
        return rest

    def awake(self) -> bool:
        """Whether any key does not rest now."""
        now_s = self._monotonic_s()
        return any(until_s <= now_s for until_s in self._rested_at_s)

    def _rest(self, status: int, retry_after: timedelta | None) -> timedelta | None:
        if status in _REFUSED:
            return self._rests.refused
        if status != _LIMITED:
            return None
        return self._rests.limited if retry_after is None else retry_after
