"""Which fault a request meets: that of its model's name, until it has happened often enough or for long enough."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from types import MappingProxyType

from tests.fakes.provider_continuations import CONTINUATIONS
from tests.fakes.provider_exchange import Behaviour
from tests.fakes.provider_faults import FAULTS, Fault, instant

EVERY_FAULT = MappingProxyType({**FAULTS, **CONTINUATIONS})
"""By name; any other model is answered as it should be."""


class Choice:
    """Remembers what happened to each model.

    Options of any model: `times` (its fault happens so often), `times_each` (so often to each x-request-id) and
    `for_ms` (so long, from its first request on); afterwards it answers as it should. `skip`: so many requests are
    answered as they should be before that.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._happened: Counter[tuple[str, str | None]] = Counter()
        self._first_s: dict[str, float] = {}

    def fault(self, model: str, request_id: str) -> Fault:
        """What to do with this request."""
        behaviour, now_s = Behaviour.of(model), self._clock()
        for key in ((model, None), (model, request_id)):
            self._happened[key] += 1
        if self._happened[model, None] <= behaviour.option("skip", 0):
            return instant
        spent = (
            self._is_over(behaviour, "times", self._happened[model, None]),
            self._is_over(behaviour, "times_each", self._happened[model, request_id]),
            self._is_over(behaviour, "for_ms", 1_000 * (now_s - self._first_s.setdefault(model, now_s))),
        )
        return instant if any(spent) else EVERY_FAULT.get(behaviour.fault, instant)

    @staticmethod
    def _is_over(behaviour: Behaviour, option: str, count: float) -> bool:
        limit = behaviour.options.get(option)
        return limit is not None and count > limit
