"""The attempt loop on fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from dialects.chat_request import read
from dialects.request import Request
from gen.weir.ledger.v1 import Outcome
from gen.weir.router.v1 import OnCut
from gen.weir.type.v1 import FinishReason, Principal, Usage
from meshkit.errors import (
    ContentFiltered,
    ContextTooLong,
    InvalidRequest,
    LedgerUnavailable,
    UpstreamError,
    UpstreamStalled,
    UpstreamTimeout,
    UpstreamTruncated,
    WeirError,
)
from services.router.domain.attempt import Asked
from services.router.domain.plan import Plan, Step
from services.router.domain.target import RetryRule
from services.router.guard import DeadlinePassed
from services.router.hedge import MIN_SAMPLES
from services.router.ports import Piece
from services.router.run_plan import RunPlan
from tests.fakes.router import FakeAttemptLog, FakeTarget, spec, surroundings

STREAM = read(b'{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":7}')
WHOLE = read(b'{"messages":[{"role":"user","content":"hi"}]}')
ASKED = Asked("req_1", Principal(key_id="k", org="o", team="t"), "auto", prompt_bytes=100)
HELLO = Piece(text="hello", usage=Usage(input_tokens=3, output_tokens=1))
END = Piece(
    text="!", finished=True, finish_reason=FinishReason.STOP, usage=Usage(input_tokens=3, output_tokens=2)
)


class Loop:
    """A plan over scripted targets, and what was written down."""

    def __init__(
        self, *scripts: Sequence[Piece | Exception | float | None], refuse: WeirError | None = None
    ) -> None:
        self.targets = [
            FakeTarget(spec(f"t{index}", local=index == 0, on_cut=OnCut.ERROR), script)
            for index, script in enumerate(scripts)
        ]
        self.log = FakeAttemptLog(refuse)
        steps = tuple(Step(target.spec, "model m") for target in self.targets)
        self.plan = Plan("m", steps)
        self.around = surroundings(self.targets, self.log, max_attempts=100)
        self.runner = RunPlan(self.around)

    async def texts(self, request: Request = STREAM, asked: Asked = ASKED) -> list[str]:
        async with aclosing(self.runner.run(self.plan, asked, request)) as arrivals:
            return [arrival.piece.text async for arrival in arrivals]

    def outcomes(self) -> list[tuple[Outcome, str]]:
        return [(entry.outcome, entry.error_reason) for entry in self.log.ended]


async def test_first_target_answers() -> None:
    """One attempt, begun and ended under the same ids, with the usage that the target reported."""
    loop = Loop([HELLO, END], [HELLO, END])
    assert await loop.texts() == ["hello", "!"]
    (begun,), (ended,) = loop.log.begun, loop.log.ended
    assert (begun.entry_id, begun.begun_at) == (ended.entry_id, ended.begun_at)
    assert ended.outcome == Outcome.OK
    assert ended.usage == Usage(input_tokens=3, output_tokens=2)
    assert ended.first_token is not None
    assert ended.latency is not None
    assert ended.first_token <= ended.latency
    assert loop.targets[1].asked == []


async def test_begun_entry_reserves() -> None:
    """The begun entry carries the request's own cap, or the target's where it names none, as an estimate."""
    capped, free = Loop([END]), Loop([END])
    await capped.texts(STREAM)
    await free.texts(WHOLE)
    assert capped.log.begun[0].usage == Usage(input_tokens=25, output_tokens=7, estimated=True)
    assert free.log.begun[0].usage == Usage(input_tokens=25, output_tokens=64, estimated=True)


async def test_failure_before_first_token_fails_over() -> None:
    """The next target answers, and the entry of the failure stands before it."""
    loop = Loop([UpstreamError("refused")], [HELLO, END])
    assert await loop.texts() == ["hello", "!"]
    assert loop.outcomes() == [(Outcome.FAILED, "UPSTREAM_ERROR"), (Outcome.OK, "")]
    assert [entry.attempt for entry in loop.log.ended] == [1, 2]
    assert loop.log.ended[0].usage == Usage()
    assert loop.log.ended[1].route_reason == "model m; t0 failed: UPSTREAM_ERROR"


async def test_silence_before_first_token_fails_over() -> None:
    """A target that says nothing within its first-token limit is left and closed."""
    loop = Loop([None], [END])
    assert await loop.texts() == ["!"]
    assert loop.outcomes()[0] == (Outcome.FAILED, "UPSTREAM_TIMEOUT")
    assert loop.targets[0].closed == 1


async def test_cut_after_first_token_is_an_error_for_a_stream() -> None:
    """What the client has cannot be taken back: it gets the error, not another beginning."""
    loop = Loop([HELLO, UpstreamTruncated("cut")], [END])
    with pytest.raises(UpstreamTruncated):
        await loop.texts()
    assert loop.outcomes() == [(Outcome.CUT, "UPSTREAM_TRUNCATED")]
    assert loop.log.ended[0].usage == HELLO.usage


async def test_end_without_finish_is_a_cut() -> None:
    """A target that stops without saying that the answer is whole has cut it."""
    loop = Loop([HELLO])
    with pytest.raises(UpstreamTruncated):
        await loop.texts()
    assert loop.outcomes() == [(Outcome.CUT, "UPSTREAM_TRUNCATED")]


async def test_stall_after_first_token() -> None:
    """Silence in mid-answer is UPSTREAM_STALLED."""
    loop = Loop([HELLO, None])
    with pytest.raises(UpstreamStalled):
        await loop.texts()


async def test_cut_of_a_whole_answer_fails_over() -> None:
    """A request that does not stream has nothing yet, so the next target may answer it from the beginning."""
    loop = Loop([HELLO, UpstreamTruncated("cut")], [END])
    assert (await loop.texts(WHOLE))[-1] == "!"
    assert loop.outcomes() == [(Outcome.CUT, "UPSTREAM_TRUNCATED"), (Outcome.OK, "")]


async def test_the_requests_own_fault_does_not_fail_over() -> None:
    """A 400 would be a 400 at every target."""
    loop = Loop([InvalidRequest("bad", param="x")], [END])
    with pytest.raises(InvalidRequest):
        await loop.texts()
    assert loop.targets[1].asked == []


async def test_all_fail() -> None:
    """The first target's error, with every attempt in its details."""
    loop = Loop([UpstreamError("refused")], [UpstreamTimeout("slow")])
    with pytest.raises(UpstreamError, match="refused") as caught:
        await loop.texts()
    assert caught.value.details["attempts"] == "t0: UPSTREAM_ERROR, t1: UPSTREAM_TIMEOUT"


async def test_client_goes_away() -> None:
    """Closing the answer closes the target and settles what was generated as cancelled."""
    loop = Loop([HELLO, None])
    async with aclosing(loop.runner.run(loop.plan, ASKED, STREAM)) as pieces:
        await anext(pieces)
    assert loop.targets[0].closed == 1
    assert loop.outcomes() == [(Outcome.CANCELLED, "CANCELLED")]
    assert loop.log.ended[0].usage == HELLO.usage


async def test_client_goes_away_before_first_token() -> None:
    """A cancelled wait is an ended attempt too, and used nothing."""
    loop = Loop([None])
    task = asyncio.create_task(loop.texts())
    while not loop.log.begun:  # noqa: ASYNC110 - the condition is plain state
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert loop.outcomes() == [(Outcome.CANCELLED, "CANCELLED")]
    assert loop.log.ended[0].usage == Usage()


async def test_reader_that_stops_after_the_end_is_no_cancel() -> None:
    """An answer whose last piece was taken is whole, even if nobody reads on."""
    loop = Loop([END])
    async with aclosing(loop.runner.run(loop.plan, ASKED, STREAM)) as pieces:
        await anext(pieces)
    assert loop.outcomes() == [(Outcome.OK, "")]


async def test_usage_is_estimated_where_none_is_reported() -> None:
    """Four bytes a token, and marked."""
    loop = Loop([Piece(text="12345678"), Piece(finished=True)])
    await loop.texts()
    assert loop.log.ended[0].usage == Usage(input_tokens=25, output_tokens=2, estimated=True)


async def test_nothing_goes_upstream_unwritten() -> None:
    """Where the log refuses, no target is asked."""
    loop = Loop([END], refuse=LedgerUnavailable("disk full"))
    with pytest.raises(LedgerUnavailable):
        await loop.texts()
    assert loop.targets[0].asked == []


async def test_signs_of_life_are_no_first_token() -> None:
    """A provider that sends comments and no token is left at its first-token limit."""
    loop = Loop([step for _ in range(20) for step in (0.05, Piece())], [END])
    assert (await loop.texts())[-1] == "!"
    assert loop.outcomes()[0] == (Outcome.FAILED, "UPSTREAM_TIMEOUT")


async def test_signs_of_life_keep_an_answer_going() -> None:
    """In mid-answer a comment counts as life: the inter-token limit begins anew."""
    loop = Loop([HELLO, *[step for _ in range(6) for step in (0.05, Piece())], END])
    assert "".join(await loop.texts()) == "hello!"


async def test_total_limit_in_mid_answer_is_a_timeout() -> None:
    """An answer that goes on and on ends at the total limit; it was not silent."""
    loop = Loop([step for _ in range(100) for step in (HELLO, 0.05)])
    target = loop.targets[0]
    limits = replace(target.spec.limits, total=timedelta(seconds=0.3))
    loop.plan = Plan("m", (Step(replace(target.spec, limits=limits), "model m"),))
    with pytest.raises(UpstreamTimeout, match="no whole answer"):
        await loop.texts()
    assert loop.outcomes() == [(Outcome.CUT, "UPSTREAM_TIMEOUT")]


async def test_end_before_the_first_token_is_no_cut() -> None:
    """A target that ends without a word has failed, and the next one answers."""
    loop = Loop([], [END])
    assert await loop.texts() == ["!"]
    assert loop.outcomes()[0] == (Outcome.FAILED, "UPSTREAM_ERROR")


async def test_callers_deadline_ends_the_attempt() -> None:
    """A deadline shorter than the target's limits is nobody's failure: cancelled, and no other target is asked."""
    loop = Loop([None], [END])
    with pytest.raises(DeadlinePassed):
        await loop.texts(asked=replace(ASKED, patience=timedelta(seconds=0.05)))
    assert loop.outcomes() == [(Outcome.CANCELLED, "CANCELLED")]
    assert loop.targets[1].asked == []


async def test_nothing_is_begun_after_the_deadline() -> None:
    """Where the caller waits no longer, no attempt is paid for."""
    loop = Loop([END])
    with pytest.raises(DeadlinePassed):
        await loop.texts(asked=replace(ASKED, patience=timedelta()))
    assert loop.log.begun == []


@pytest.mark.parametrize(("before", "outcome"), [([], Outcome.FAILED), ([HELLO], Outcome.CUT)])
async def test_fault_of_an_adapter(before: list[Piece], outcome: Outcome) -> None:
    """An exception that nobody meant ends the attempt as INTERNAL; its text is not the client's."""
    loop = Loop([*before, LookupError("secret")])
    with pytest.raises((UpstreamError, UpstreamTruncated)) as caught:
        await loop.texts()
    assert isinstance(caught.value, UpstreamTruncated) == bool(before)
    assert "secret" not in caught.value.message
    assert loop.outcomes() == [(outcome, "INTERNAL")]


async def test_too_long_for_one_model_may_fit_another() -> None:
    """A prompt over one target's context is asked of the next one."""
    loop = Loop([ContextTooLong("2,048 tokens at most")], [END])
    assert await loop.texts() == ["!"]


async def test_log_that_refuses_the_second_attempt() -> None:
    """Where the next attempt cannot be written down it is not made; the first one has its end."""
    loop = Loop([UpstreamError("refused")], [END])
    loop.log.refuse_after = 1
    with pytest.raises(LedgerUnavailable):
        await loop.texts()
    assert loop.targets[1].asked == []
    assert loop.outcomes() == [(Outcome.FAILED, "UPSTREAM_ERROR")]


async def test_route_reason_is_bounded() -> None:
    """It travels in a header, so many failures do not make it longer than that may be."""
    loop = Loop(*[[UpstreamError("x" * 500)] for _ in range(60)], [END])
    await loop.texts()
    reason = loop.log.ended[-1].route_reason
    assert len(reason) <= 512
    assert reason.isascii()
    assert reason.isprintable()
    assert reason.startswith("model m; t0 failed: UPSTREAM_ERROR; ")


async def test_whole_answer_is_read_to_its_end() -> None:
    """After the last piece the call ends by itself instead of being cancelled: its connection can be used again."""
    loop = Loop([END, 0.01])
    assert await loop.texts() == ["!"]
    assert loop.targets[0].ended == 1


async def test_chunks_without_text_are_estimated_too() -> None:
    """Arguments of a tool call and hidden reasoning cost tokens: about one for each chunk."""
    call = Piece(bodies=[b"{}", b"{}", b"{}"], tool_call_begun=True, content=True)
    loop = Loop([Piece(text="1234"), call, Piece(finished=True)])
    await loop.texts()
    assert loop.log.ended[0].usage == Usage(input_tokens=25, output_tokens=4, estimated=True)


async def test_failure_in_mid_answer_is_a_cut() -> None:
    """Whatever a target calls it: after the first token the answer was truncated, and that target has had its turn."""
    broke = UpstreamError("broke", details={"down": "true"})
    loop = Loop([HELLO, broke], [END])
    with pytest.raises(UpstreamTruncated, match="broke") as caught:
        await loop.texts()
    assert caught.value.details["down"] == "true"
    assert loop.outcomes() == [(Outcome.CUT, "UPSTREAM_TRUNCATED")]
    loop = Loop([HELLO, UpstreamError("broke")], [END])
    patient = replace(loop.targets[0].spec, retry=RetryRule())
    loop.plan = Plan("m", (Step(patient, "model m"), *loop.plan.steps[1:]))
    await loop.texts(WHOLE)
    assert [len(target.asked) for target in loop.targets] == [1, 1]


async def test_fault_behind_a_whole_answer() -> None:
    """The client has its end: nobody goes on with it, and it was no failure."""
    loop = Loop([HELLO, END, LookupError("bug")], [HELLO, END])
    plan = tuple(Step(replace(target.spec, on_cut=OnCut.CONTINUE), "model m") for target in loop.targets)
    loop.plan = Plan("m", plan)
    assert await loop.texts() == ["hello", "!"]
    assert loop.outcomes() == [(Outcome.OK, "")]
    assert loop.targets[1].asked == []


async def test_hedge_is_counted_whoever_wins() -> None:
    """How many attempts were begun when the answer was."""
    loop = Loop([0.02, HELLO, END], [None])
    _hedged(loop)
    async with aclosing(loop.runner.run(loop.plan, ASKED, STREAM)) as arrivals:
        seen = [(arrival.attempt.number, arrival.attempts) async for arrival in arrivals]
    assert seen == [(1, 2), (1, 2)]
    assert sorted(loop.outcomes()) == [(Outcome.OK, ""), (Outcome.CANCELLED, "CANCELLED")]


async def test_hedge_does_not_work_around_a_refusal() -> None:
    """Where the target refuses the content, the one that was asked because it was late is not waited for."""
    loop = Loop([0.02, ContentFiltered("no")], [None])
    _hedged(loop)
    with pytest.raises(ContentFiltered):
        await loop.texts()
    assert sorted(loop.outcomes()) == [
        (Outcome.FAILED, "CONTENT_FILTERED"),
        (Outcome.CANCELLED, "CANCELLED"),
    ]


async def test_hedge_that_refuses_leaves_the_first() -> None:
    """It may know a parameter less."""
    loop = Loop([0.02, HELLO, END], [InvalidRequest("bad")])
    _hedged(loop)
    assert await loop.texts() == ["hello", "!"]


async def test_probe_of_a_hedged_target_is_one() -> None:
    """Requests that come at the same moment do not all find out whether it is back."""
    loop = Loop([0.02, HELLO, END], [HELLO, END])
    _hedged(loop)
    state = loop.around.states["t0"]
    down = UpstreamError("down", details={"down": "true"})
    loop.targets[0].script, script = [down], loop.targets[0].script
    await loop.texts()
    loop.targets[0].script = script
    assert state.is_left_alone()
    state.breaker._probe_at_s = 0.0
    loop.targets[0].asked.clear()
    await asyncio.gather(*(loop.texts() for _ in range(8)))
    assert len(loop.targets[0].asked) == 1


def _hedged(loop: Loop) -> None:
    """Has the first target of a loop hedged at once."""
    first = loop.plan.steps[0]
    loop.plan = Plan("m", (replace(first, target=replace(first.target, hedge=True)), *loop.plan.steps[1:]))
    for _ in range(MIN_SAMPLES):
        loop.around.states["t0"].first_tokens[True].add(0.0)


async def test_what_comes_before_the_first_token_is_bounded() -> None:
    """A provider that sends large events without a token has failed; the next target answers."""
    large = Piece(bodies=[b"x" * 300_000])
    loop = Loop([large] * 4, [END])
    assert await loop.texts() == ["!"]
    assert loop.outcomes()[0] == (Outcome.FAILED, "UPSTREAM_ERROR")
