"""Answers within limits: what is set aside, what is settled however the answer ends, and who is not asked at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from dialects.chat_request import read
from dialects.embedding_request import read as read_embedding
from dialects.request import Request
from gen.weir.auth.v1 import Limits, Meter
from gen.weir.router.v1 import OnCut, Task
from gen.weir.type.v1 import FinishReason, Principal, Usage
from meshkit.errors import (
    ContextTooLong,
    ModelNotFound,
    NoHealthyTarget,
    RateLimited,
    UpstreamError,
    WeirError,
)
from meshkit.limit_settings import LimitsBlock
from services.router.answer import Answer, Asking
from services.router.domain.permissions import Caller, Permissions
from services.router.domain.target import ModelSpec
from services.router.ports import Piece
from services.router.rates.limited_answer import LimitedAnswer
from services.router.rates.subjects import Subjects
from services.router.run_plan import RunPlan
from services.router.wishes import Wishes
from tests.fakes.router import FakeAttemptLog, FakeTarget, spec, surroundings
from tests.fakes.router_rates import Authority, Desk, virtually

ALL = Limits(requests_per_minute=100, tokens_per_minute=10_000, concurrent_requests=3)
WHOLE = [
    Piece(text="a", usage=Usage(input_tokens=5, output_tokens=1)),
    Piece(finished=True, finish_reason=FinishReason.STOP, usage=Usage(input_tokens=5, output_tokens=2)),
]
CUT = [Piece(text="a", usage=Usage(input_tokens=5, output_tokens=1)), UpstreamError("gone")]
CHAT = read(b'{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":50}')
MODELS = {
    "chat": ModelSpec("chat", ("local", "cloud"), auto=False),
    "small": ModelSpec("small", ("local",), auto=False),
    "big": ModelSpec("big", ("cloud",), auto=False),
    "vectors": ModelSpec("vectors", ("embed",), auto=False, task=Task.EMBED),
}


class _Router:
    """A limited answer over scripted targets."""

    def __init__(self, desk: Desk, local: Sequence[Any], cloud: Sequence[Any] = (), **targets: Any) -> None:
        self.desk = desk
        specs = [
            (spec("local", local=True, **targets), local),
            (spec("cloud", local=False), cloud),
            (spec("embed", local=True, task=Task.EMBED), WHOLE),
        ]
        self.targets = {one.name: FakeTarget(one, script) for one, script in specs}
        around = surroundings(self.targets.values(), FakeAttemptLog(), desk.clock)
        answer = Answer(MODELS, "chat", around.states, RunPlan(around), around.draw)
        self.answer = LimitedAnswer(answer, Subjects(LimitsBlock()), desk.admission, 1_000, desk.metrics)

    async def ask(self, asking: Asking, request: Request = CHAT) -> int:
        """Reads an answer to its end; how many pieces it had."""
        async with aclosing(self.answer.answer(request, asking)) as arrivals:
            return len([arrival async for arrival in arrivals])

    def held(self) -> dict[str, tuple[int, int]]:
        """Of each meter: used in all, and set aside for requests that run."""
        return {
            held.limit.meter.name: (held.used_total, held.running)
            for held, _ in self.desk.leases._of.values()
        }


def _asking(limits: Limits | None = ALL, wishes: Wishes | None = None) -> Asking:
    caller = Caller(Principal(key_id="k", org="acme"), Permissions(), limits=limits)
    return Asking(caller, "req_1", wishes or Wishes())


def _authority() -> Authority:
    """Knows the key's limits as the key does."""
    return Authority(
        {
            Meter.REQUESTS: ALL.requests_per_minute,
            Meter.TOKENS: ALL.tokens_per_minute,
            Meter.CONCURRENT: ALL.concurrent_requests,
        }
    )


def test_a_whole_answer() -> None:
    """One request, the tokens that its target counted, and the slot is free."""

    async def scenario() -> None:
        async with Desk(_authority()).running() as desk:
            router, asking = _Router(desk, WHOLE), _asking()
            assert await router.ask(asking) == 2
            assert router.held() == {"REQUESTS": (1, 0), "TOKENS": (7, 0), "CONCURRENT": (0, 0)}
            told = dict(asking.standing.headers)
            assert told["x-ratelimit-limit-requests"] == "100"
            assert told["x-ratelimit-remaining-requests"] == "99"
            # The prompt's bytes by four, and the cap of 50.
            assert told["x-ratelimit-remaining-tokens"] == str(10_000 - 50 - -(-CHAT.prompt_bytes // 4))

    virtually(scenario())


def test_left_in_the_middle() -> None:
    """A client that goes away gets no tokens back that were used, and its slot is free at once."""

    async def scenario() -> None:
        async with Desk(_authority()).running() as desk:
            router = _Router(desk, [WHOLE[0], None])
            arrivals = router.answer.answer(CHAT, _asking())
            await anext(arrivals)
            assert router.held()["CONCURRENT"] == (0, 1)
            await arrivals.aclose()
            assert router.held() == {"REQUESTS": (1, 0), "TOKENS": (6, 0), "CONCURRENT": (0, 0)}

    virtually(scenario())


def test_cancelled_before_the_first_token() -> None:
    """Nothing was used, and nothing stays set aside."""

    async def scenario() -> None:
        async with Desk(_authority()).running() as desk:
            router = _Router(desk, [None])
            task = asyncio.create_task(router.ask(_asking()))
            await asyncio.sleep(0.1)
            assert router.held()["CONCURRENT"] == (0, 1)
            task.cancel()
            await asyncio.wait([task])
            assert router.held() == {"REQUESTS": (1, 0), "TOKENS": (0, 0), "CONCURRENT": (0, 0)}

    virtually(scenario())


def test_never_begun() -> None:
    """An answer that nobody reads takes nothing."""

    async def scenario() -> None:
        async with Desk(_authority()).running() as desk:
            router = _Router(desk, WHOLE)
            await router.answer.answer(CHAT, _asking()).aclose()
            assert router.held() == {}

    virtually(scenario())


def test_every_attempt_counts() -> None:
    """Also the tokens of an answer that broke off while it was held back, before another target gave it whole."""

    async def scenario() -> None:
        async with Desk(_authority()).running() as desk:
            router = _Router(desk, CUT, WHOLE)
            await router.ask(_asking(wishes=Wishes(on_cut=OnCut.HOLD)))
            assert router.held() == {"REQUESTS": (1, 0), "TOKENS": (6 + 7, 0), "CONCURRENT": (0, 0)}

    virtually(scenario())


def test_an_absurd_count_spoils_nothing_for_good() -> None:
    """A provider that says it used more than any limit uses this one up; Auth goes on taking what is reported."""
    absurd = [Piece(text="a", finished=True, usage=Usage(input_tokens=2**63 - 1, output_tokens=2**63 - 1))]

    async def scenario() -> None:
        authority = _authority()
        async with Desk(authority).running() as desk:
            router = _Router(desk, absurd)
            await router.ask(_asking())
            await asyncio.sleep(1)
            with pytest.raises(RateLimited):
                await router.ask(_asking())
            assert desk.holders == 1
            assert desk.counted("weir_router_rate_exchange_failures_total") == 0
            await asyncio.sleep(120)
            await router.ask(_asking())

    virtually(scenario())


def test_all_targets_fail() -> None:
    """The error is the target's, and the request counts."""

    async def scenario() -> None:
        async with Desk(_authority()).running() as desk:
            router = _Router(desk, [UpstreamError("down")], [UpstreamError("down")])
            with pytest.raises((UpstreamError, NoHealthyTarget)):
                await router.ask(_asking())
            assert router.held() == {"REQUESTS": (1, 0), "TOKENS": (0, 0), "CONCURRENT": (0, 0)}

    virtually(scenario())


def test_too_many_at_once() -> None:
    """The fourth of three is refused before any target is asked."""

    async def scenario() -> None:
        async with Desk(_authority()).running() as desk:
            router = _Router(desk, [None])
            running = [asyncio.create_task(router.ask(_asking())) for _ in range(3)]
            await asyncio.sleep(0.1)
            with pytest.raises(
                RateLimited, match="the key's limit of 3 requests at the same time is used up"
            ):
                await router.ask(_asking())
            assert len(router.targets["local"].asked) == 3
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    virtually(scenario())


def test_without_limits() -> None:
    """The very generator of the answer inside, and Auth is not asked."""

    async def scenario() -> None:
        authority = _authority()
        async with Desk(authority).running() as desk:
            router = _Router(desk, WHOLE)
            arrivals = router.answer.answer(CHAT, _asking(None))
            assert arrivals.ag_code.co_name == "arrivals"  # type: ignore[attr-defined] # of async generators alone
            assert len([arrival async for arrival in arrivals]) == 2
            assert authority.requests == []

    virtually(scenario())


def test_wrong_requests_cost_nothing() -> None:
    """What cannot be planned is refused before any limit is looked at."""

    async def scenario() -> None:
        async with Desk(_authority()).running() as desk:
            router = _Router(desk, WHOLE)
            with pytest.raises(ModelNotFound):
                await router.ask(_asking(), read(b'{"model":"gone","prompt":"hi"}'))
            assert router.held() == {}

    virtually(scenario())


@pytest.mark.parametrize(
    ("cap", "error"),
    [(b"", None), (b',"max_tokens":20', None), (b',"max_tokens":60', ContextTooLong)],
)
def test_context(cap: bytes, error: type[WeirError] | None) -> None:
    """Prompt and asked answer together; without a cap the prompt alone. Nothing is taken where it is too long."""

    async def scenario() -> None:
        async with Desk(_authority()).running() as desk:
            router = _Router(desk, WHOLE)
            request = replace(read(b'{"prompt":"hi"%b}' % cap), prompt_bytes=160)
            asking = _asking(replace(ALL, context_tokens=70))
            if error is None:
                await router.ask(asking, request)
                return
            with pytest.raises(
                error, match="about 40 tokens and asks for 60 more: over the key's limit of 70 tokens"
            ):
                await router.ask(asking, request)
            assert router.held() == {}
            assert desk.counted("weir_router_rate_limited_total", kind="key", meter="context") == 1

    virtually(scenario())


@pytest.mark.parametrize(
    ("body", "wishes", "down"),
    [
        (b'"model":"small","fallbacks":["big"]', Wishes(targets=("cloud",)), False),
        (b'"model":"small","fallbacks":["big"],"tools":[]', Wishes(), False),
        (b'"model":"small","fallbacks":["big"]', Wishes(), True),
        (b'"model":"big","fallbacks":["small"]', Wishes(), False),
    ],
    ids=["only a fallback's target", "which alone can do it", "the first is down", "itself"],
)
def test_a_limited_model_is_limited_as_a_fallback(body: bytes, wishes: Wishes, *, down: bool) -> None:
    """The limits are those of the model whose target is asked first, however it came there."""
    body = body.replace(
        b'"tools":[]', b'"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]'
    )
    request = read(b'{"messages":[{"role":"user","content":"hello there"}],"stream":true,' + body + b"}")

    async def scenario() -> None:
        async with Desk(_authority()).running() as desk:
            router = _Router(desk, WHOLE, WHOLE)
            router.targets["local"].up = not down
            router.answer.take_over(
                Subjects(LimitsBlock.model_validate({"models": {"big": {"context_tokens": 1}}}))
            )
            with pytest.raises(ContextTooLong, match="the model big's limit"):
                await router.ask(_asking(None, wishes), request)
            spared = replace(request, fallbacks=(), typed=replace(request.typed, model="chat"))
            if not request.needs:
                assert await router.ask(_asking(None), spared) == 2

    virtually(scenario())


def test_without_a_cap() -> None:
    """A usual answer is set aside for each choice; for vectors, the prompt alone."""

    async def scenario() -> None:
        async with Desk(_authority()).running() as desk:
            router = _Router(desk, [None], [None])
            request = replace(read(b'{"prompt":"hi","n":2}'), prompt_bytes=40)
            task = asyncio.create_task(router.ask(_asking(), request))
            await asyncio.sleep(0.1)
            assert router.held()["TOKENS"] == (0, 2_010)
            task.cancel()
            await asyncio.wait([task])
            vectors = replace(read_embedding(b'{"model":"vectors","input":"x"}'), prompt_bytes=40)
            asking = _asking()
            await router.ask(asking, vectors)
            assert dict(asking.standing.headers)["x-ratelimit-remaining-tokens"] == str(10_000 - 10)

    virtually(scenario())
