"""Routing is exchanged while requests run: new ones go the new way, those under way end on the old."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

import pytest

from dialects.chat_request import read
from gen.weir.router.v1 import Task
from gen.weir.type.v1 import Principal
from meshkit.errors import ModelNotFound, UpstreamError
from pricing.price_list import PriceList
from services.router.answer import Asking
from services.router.domain.permissions import Caller, Permissions
from services.router.domain.target import BreakerRule, ModelSpec
from services.router.ports import Piece
from services.router.routing import Routing
from services.router.run_plan import Arrival, Surroundings
from services.router.wishes import Wishes
from tests.fakes.router import FakeAttemptLog, FakeClock, FakeTarget, spec, surroundings

WITHIN_S = 10.0
WHOLE = [Piece(text="a", content=True), Piece(text="b", content=True), Piece(content=True, finished=True)]
CHAT = read(b'{"messages":[{"role":"user","content":"hi"}],"stream":true}')


def _target(name: str, *, fails: bool = False) -> FakeTarget:
    rule = BreakerRule(window=timedelta(minutes=1), failures=1, probe=timedelta(minutes=1))
    return FakeTarget(spec(name, local=True, breaker=rule), [UpstreamError("down")] if fails else WHOLE)


def _models(*targets: str) -> dict[str, ModelSpec]:
    return {"m": ModelSpec("m", targets, auto=False, task=Task.CHAT)}


def _asking() -> Asking:
    return Asking(Caller(Principal(key_id="k"), Permissions([], [])), "req_1", Wishes())


def _routing(*targets: FakeTarget) -> tuple[Routing, Surroundings]:
    around = surroundings(targets, FakeAttemptLog(), FakeClock())
    return Routing(around, _models(*(target.spec.name for target in targets)), "m", 1), around


def _take_over(routing: Routing, *targets: FakeTarget) -> asyncio.Event:
    names = {target.spec.name: target for target in targets}
    return routing.take_over(names, _models(*names), "m", PriceList([]), 6)


async def _answered(routing: Routing) -> set[str]:
    async with aclosing(routing.answer.answer(CHAT, _asking())) as arrivals:
        return {arrival.attempt.target.name async for arrival in arrivals}


async def test_the_next_request_goes_the_new_way() -> None:
    """Plans, targets and models are exchanged together, also where they are shown."""
    routing, _ = _routing(_target("old"))
    assert await _answered(routing) == {"old"}
    _take_over(routing, _target("new"))
    assert await _answered(routing) == {"new"}
    shown = routing.cards.one("m", Permissions([], [])).openai()
    assert [target["name"] for target in shown["targets"]] == ["new"]
    routing.take_over({}, {}, "m", PriceList([]), 6)
    with pytest.raises(ModelNotFound):
        await _answered(routing)


async def test_a_request_under_way_ends_on_the_old() -> None:
    """Also where its next target is gone; then, and only then, it is told that nobody uses the old ones any more."""
    failing, second = _target("failing", fails=True), _target("second")
    routing, _ = _routing(failing, second)
    arrivals: AsyncGenerator[Arrival, None] | None = routing.answer.answer(CHAT, _asking())
    del _
    ended = _take_over(routing, _target("new"))
    assert arrivals is not None
    first = await anext(arrivals)
    assert first.attempt.target.name == "second"
    await asyncio.sleep(0)  # one turn of the loop, in which the event could be set
    assert not ended.is_set()
    assert [arrival.attempt.target.name async for arrival in arrivals] == ["second", "second"]
    # The failed attempt's traceback refers to its own run, and the fake target keeps its error.
    del first, arrivals, failing
    gc.collect()
    async with asyncio.timeout(WITHIN_S):
        await ended.wait()


async def test_without_requests_the_old_ones_are_free_at_once() -> None:
    """Nothing else keeps them."""
    routing, around = _routing(_target("old"))
    del around
    ended = _take_over(routing, _target("new"))
    async with asyncio.timeout(WITHIN_S):
        await ended.wait()


async def test_what_was_learnt_of_a_target_that_stays_is_kept() -> None:
    """Its breaker stays open; one whose settings changed begins anew."""
    failing, other = _target("failing", fails=True), _target("other")
    routing, around = _routing(failing, other)
    assert await _answered(routing) == {"other"}
    assert around.states["failing"].is_left_alone()
    _take_over(routing, failing, other, _target("more"))
    await _answered(routing)
    assert len(failing.asked) == 1
    again = _target("failing", fails=True)
    _take_over(routing, again, other)
    await _answered(routing)
    assert len(again.asked) == 1
