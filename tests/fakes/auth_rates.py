"""A stand-in for the counts of limits."""

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

from meshkit.errors import UpstreamError
from services.auth.domain.rate_window import Window
from services.auth.ports import RateBook

_T = TypeVar("_T")
_START_S = 1_790_000_000.25


class FakeRates:
    """RateStore in memory, over a clock that stands still until it is moved."""

    def __init__(self, lately_s: float = 10.0) -> None:
        self.now_s = _START_S
        self.away = False
        """While set, every use raises UpstreamError."""
        self.windows: dict[str, Window] = {}
        self._lately_s = lately_s
        self._named: dict[str, list[str]] = {}
        self._heard_s: dict[str, float] = {}

    async def exchange(self, holder: str, limits: Sequence[str], use: Callable[[RateBook], _T]) -> _T:
        """What `use` returns, after the windows are kept as it left them."""
        self._check()
        ids = {*limits, *self._named.get(holder, ())}
        windows = {
            name: copy.deepcopy(self.windows.get(name, Window()))
            for name in sorted(ids)
            if name in self.windows or name in limits
        }
        others = [at_s for name, at_s in self._heard_s.items() if name != holder]
        lately = [at_s for at_s in others if at_s > self.now_s - self._lately_s]
        result = use(RateBook(self.now_s, len(lately) + 1, windows))
        self.windows |= windows
        self._named[holder], self._heard_s[holder] = sorted(limits), self.now_s
        return result

    async def sweep(self) -> int:
        """Ends what counts no more."""
        self._check()
        void = [name for name, window in self.windows.items() if window.void_s < self.now_s]
        for name in void:
            del self.windows[name]
        return len(void)

    def _check(self) -> None:
        if self.away:
            raise UpstreamError("the store cannot be reached")
