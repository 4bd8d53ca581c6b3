"""Where requests go, and how that is exchanged while they run."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pricing.price_list import PriceList
from services.router.answer import Answer
from services.router.domain.target import ModelSpec
from services.router.model_cards import ModelCards
from services.router.ports import Target
from services.router.run_plan import RunPlan, Surroundings
from services.router.target_state import TargetState


class Routing:
    """What plans, runs and shows. A request goes its whole way by what held when it was planned.

    Args:
        around: what a run needs; its targets, prices and number of attempts are those of the beginning.
        since_s: Unix time at which this router was configured.
    """

    def __init__(
        self, around: Surroundings, models: Mapping[str, ModelSpec], default_model: str, since_s: int
    ) -> None:
        self._around = around
        self._follow(around.states)
        self.answer: Final = Answer(models, default_model, around.states, RunPlan(around), around.draw)
        self.cards: Final = ModelCards(models, around.states, around.prices, around.clock, since_s)

    def states(self, targets: Mapping[str, Target]) -> dict[str, TargetState]:
        """The state of each target: what was learnt of those that are in use already, nothing of others."""
        known = {id(state.target): state for state in self._around.states.values()}
        return {
            name: known.get(id(target)) or TargetState(target, self._around.clock)
            for name, target in targets.items()
        }

    def take_over(
        self,
        targets: Mapping[str, Target],
        models: Mapping[str, ModelSpec],
        default_model: str,
        prices: PriceList,
        max_attempts: int,
    ) -> asyncio.Event:
        """Plans requests by these from now on. The event is set when the last one that was planned before has ended."""
        former = self._around
        around = replace(former, states=self.states(targets), prices=prices, max_attempts=max_attempts)
        self._around = around
        for name in former.states.keys() - around.states.keys():
            around.metrics.forget(name)
        self._follow(around.states)
        self.answer.take_over(models, default_model, around.states, RunPlan(around))
        self.cards.take_over(models, around.states, prices)
        return _end_of(former)

    def _follow(self, states: Mapping[str, TargetState]) -> None:
        for name, state in states.items():
            self._around.metrics.follow(name, state.target.is_up, state.is_left_alone)


def _end_of(around: Surroundings) -> asyncio.Event:
    """Set once nothing refers to `around` any more: every run does until it ends, and counting them would cost each.

    A run with a failed attempt refers to itself by its error's traceback, so the garbage collector may take its time.
    """
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(ended.set)

    weakref.finalize(around, tell).atexit = False
    return ended
