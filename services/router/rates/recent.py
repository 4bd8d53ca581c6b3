"""What was used within the last minute, by this process's own count."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 60


class Recent:
    """Units by the second in which they were used. Seconds are whole ones of the monotonic clock."""

    __slots__ = ("_seconds", "_sum")

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()
        """Second and units; at most one more than the window has."""
        self._sum = 0

    def add(self, now_s: float, units: int) -> None:
        """Notes a use."""
        second, seconds = int(now_s), self._seconds
        if seconds and seconds[-1][0] == second:
            seconds[-1][1] += units
        else:
            self._trim(second)
            seconds.append([second, units])
        self._sum += units

    def units(self, now_s: float) -> int:
        """Used within the last 60 s, or up to a second longer: never less than it was."""
        self._trim(int(now_s))
        return self._sum

    def frees_in_s(self, now_s: float, units: int) -> float:
        """Until so many units have left the window; the whole window where there are fewer."""
        for second, used in self._seconds:
            units -= used
            if units <= 0:
                return max(0.0, second + 1 + WINDOW_S - now_s)
        return float(WINDOW_S)

    def _trim(self, second: int) -> None:
        seconds = self._seconds
        while seconds and seconds[0][0] < second - WINDOW_S:
            self._sum -= seconds.popleft()[1]
