"""So many a second, and a few at once after a pause."""

from __future__ import annotations


class TokenBucket:
    """Begins full. Times are monotonic seconds of one clock.

    Args:
        per_s: tokens that come back each second.
        burst: tokens that it holds at most; at least 1 to be of use.
    """

    __slots__ = ("_at_s", "_burst", "_left", "_per_s")

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._at_s = float("-inf")

    def take(self, now_s: float) -> bool:
        """Takes one token, if there is one."""
        self._left = min(self._burst, self._left + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
