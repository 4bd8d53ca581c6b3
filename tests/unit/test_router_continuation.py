"""What happens after the first token: continuation, holding back, and what is never continued."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects.chat_request import read
from dialects.request import Request
from gen.weir.ledger.v1 import Outcome
from gen.weir.router.v1 import OnCut
from gen.weir.type.v1 import FinishReason, Principal, ToolCallDelta, Usage
from meshkit.errors import (
    ContentFiltered,
    InvalidRequest,
    UpstreamError,
    UpstreamStalled,
    UpstreamTruncated,
)
from services.router.domain.attempt import Asked
from services.router.domain.plan import Plan, Step
from services.router.domain.replay import Replay
from services.router.ports import Piece
from services.router.run_plan import Arrival, RunPlan
from tests.fakes.router import FakeAttemptLog, FakeTarget, spec, surroundings

STREAM = read(b'{"messages":[{"role":"user","content":"hi"}],"stream":true}')
WHOLE = read(b'{"messages":[{"role":"user","content":"hi"}]}')
ASKED = Asked("req_1", Principal(key_id="k", org="o", team="t"), "m", prompt_bytes=400)
CUT = UpstreamTruncated("t0: cut")


def said(*texts: str) -> list[Piece]:
    return [Piece(text=text, bodies=[text.encode()], content=True) for text in texts]


def end(tokens: int) -> Piece:
    return Piece(
        finished=True,
        content=True,
        finish_reason=FinishReason.STOP,
        usage=Usage(input_tokens=90, output_tokens=tokens),
    )


class Case:
    """A first target that breaks off, and others that may take over."""

    def __init__(
        self, *scripts: Sequence[Piece | Exception | float | None], prefill: Sequence[str] = ()
    ) -> None:
        styles = [*prefill, *[""] * len(scripts)]
        self.targets = [
            FakeTarget(spec(f"t{at}", local=False, prefill=style), script)
            for at, (script, style) in enumerate(zip(scripts, styles, strict=False))
        ]
        self.log = FakeAttemptLog()
        self.runner = RunPlan(surroundings(self.targets, self.log))
        self.seen: list[Arrival] = []

    async def run(self, request: Request = STREAM, on_cut: OnCut = OnCut.UNSPECIFIED) -> str:
        plan = Plan("m", tuple(Step(target.spec, "model m") for target in self.targets))
        async with aclosing(self.runner.run(plan, ASKED, request, on_cut)) as arrivals:
            async for arrival in arrivals:
                self.seen.append(arrival)
        return "".join(arrival.piece.text for arrival in self.seen)

    @property
    def text(self) -> str:
        return "".join(arrival.piece.text for arrival in self.seen)

    def outcomes(self) -> list[Outcome]:
        return [Outcome(entry.outcome) for entry in self.log.ended]


async def test_prefill() -> None:
    """The next target is sent the text so far and goes on: the client gets one whole answer."""
    case = Case([*said("Once ", "upon "), CUT], [*said("a ", "time"), end(2)], prefill=["", "plain"])
    assert await case.run() == "Once upon a time"
    assert case.targets[1].prefills == ["Once upon "]
    assert case.outcomes() == [Outcome.CUT, Outcome.OK]
    assert [arrival.native for arrival in case.seen] == [True, True, False, False, False]
    last = case.seen[-1]
    assert last.piece.finish_reason == FinishReason.STOP
    assert last.bill is not None
    # 10 bytes were received of the first leg: 3 tokens, estimated.
    assert last.bill.usage == Usage(input_tokens=100, output_tokens=5, estimated=True)


async def test_replay() -> None:
    """A target that cannot be prefilled is asked afresh; what it repeats is not sent twice."""
    case = Case([*said("Once ", "upon "), CUT], [*said("Once up", "on a ", "time"), end(4)])
    assert await case.run() == "Once upon a time"
    assert case.targets[1].prefills == [""]
    bill = case.seen[-1].bill
    assert bill is not None
    assert bill.usage == Usage(input_tokens=90, output_tokens=4)
    assert bill.attempts == 2


async def test_replay_that_differs_is_the_original_break() -> None:
    """The moment it says something else the client is told that its answer broke off; nothing of it is sent."""
    case = Case([*said("Once ", "upon "), CUT], [*said("Once ", "there "), end(4)], [*said("x"), end(1)])
    with pytest.raises(UpstreamTruncated, match="t0: cut") as caught:
        await case.run()
    assert case.text == "Once upon "
    assert caught.value.details["attempts"] == "t0: UPSTREAM_TRUNCATED, t1: UPSTREAM_TRUNCATED"
    assert case.outcomes() == [Outcome.CUT, Outcome.CANCELLED]
    assert case.targets[1].closed == 1
    assert case.targets[2].asked == []


async def test_replay_that_is_shorter_differs_too() -> None:
    """A new answer that ends before it caught up is another answer."""
    case = Case([*said("Once ", "upon "), CUT], [*said("Once"), end(1)])
    with pytest.raises(UpstreamTruncated, match="t0: cut"):
        await case.run()


async def test_refused_prefill_is_replayed() -> None:
    """The 400 of a target that knows no prefill never reaches the client: it is asked afresh."""
    case = Case([*said("Once "), CUT], [InvalidRequest("no prefill")], prefill=["", "plain"])

    case.targets[1].afresh = [*said("Once ", "upon"), end(2)]
    assert await case.run() == "Once upon"
    assert case.targets[1].prefills == ["Once ", ""]
    assert case.outcomes() == [Outcome.CUT, Outcome.FAILED, Outcome.OK]


async def test_target_that_fails_to_take_over() -> None:
    """The next one is asked instead."""
    case = Case(
        [*said("Once "), CUT],
        [UpstreamError("down")],
        [*said("upon"), end(1)],
        prefill=["", "plain", "plain"],
    )
    assert await case.run() == "Once upon"
    assert case.targets[2].prefills == ["Once "]


async def test_second_break() -> None:
    """An answer may break off more than once; each target goes on from all that was delivered."""
    case = Case(
        [*said("Once "), CUT],
        [*said("upon "), UpstreamStalled("silent")],
        [*said("a time"), end(2)],
        prefill=["", "plain", "plain"],
    )
    assert await case.run() == "Once upon a time"
    assert case.targets[2].prefills == ["Once upon "]
    assert case.outcomes() == [Outcome.CUT, Outcome.CUT, Outcome.OK]


async def test_nobody_to_take_over() -> None:
    """With no target left the client gets the error of the break."""
    case = Case([*said("Once "), CUT])
    with pytest.raises(UpstreamTruncated, match="t0: cut"):
        await case.run()


async def test_on_cut_error() -> None:
    """A request that wants no continuation gets the error at once."""
    case = Case([*said("Once "), CUT], [*said("upon"), end(1)], prefill=["", "plain"])
    with pytest.raises(UpstreamTruncated):
        await case.run(on_cut=OnCut.ERROR)
    assert case.targets[1].asked == []


async def test_on_cut_hold() -> None:
    """Nothing is sent before the answer is whole, so that another target can begin anew."""
    case = Case([*said("Once "), CUT], [*said("There ", "was"), end(2)])
    assert await case.run(on_cut=OnCut.HOLD) == "There was"
    assert {arrival.attempt.target.name for arrival in case.seen} == {"t1"}
    assert all(arrival.native for arrival in case.seen)


async def test_whole_answers_begin_anew() -> None:
    """A request that does not stream has nothing yet: the next target answers afresh."""
    case = Case([*said("Once "), CUT], [*said("There"), end(1)])
    assert await case.run(WHOLE) == "There"


@pytest.mark.parametrize(
    "extra",
    [
        b'"n":2',
        b'"logprobs":true',
        b'"response_format":{"type":"json_object"}',
    ],
)
async def test_never_continued(extra: bytes) -> None:
    """Answers of a given form, several at once, or with probabilities end in the error."""
    request = read(b'{"messages":[{"role":"user","content":"hi"}],"stream":true,%b}' % extra)
    case = Case([*said("{"), CUT], [*said("}"), end(1)], prefill=["", "plain"])
    with pytest.raises(UpstreamTruncated):
        await case.run(request)
    assert case.targets[1].asked == []


async def test_tool_call_is_never_continued() -> None:
    """Half a call of a tool is not to be completed by someone else."""
    call = Piece(bodies=[b"{}"], content=True, tool_call_begun=True)
    case = Case([call, CUT], [*said("x"), end(1)], prefill=["", "plain"])
    with pytest.raises(UpstreamTruncated):
        await case.run()
    assert case.targets[1].asked == []


async def test_continuation_that_calls_a_tool_is_another_answer() -> None:
    """What was text cannot become a call."""
    call = Piece(tool_calls=[ToolCallDelta(name="look")], content=True)
    case = Case([*said("Once "), CUT], [call, end(1)], prefill=["", "plain"])
    with pytest.raises(UpstreamTruncated, match="t0: cut"):
        await case.run()


async def test_refusal_in_mid_answer_is_the_clients() -> None:
    """A provider that withholds the rest is not worked around."""
    case = Case([*said("Once "), ContentFiltered("no")], [*said("x"), end(1)], prefill=["", "plain"])
    with pytest.raises(ContentFiltered):
        await case.run()
    assert case.targets[1].asked == []


@given(text=st.text(max_size=30), at=st.integers(0, 30), cuts=st.lists(st.integers(0, 30), max_size=5))
def test_replay_gives_the_rest(text: str, at: int, cuts: list[int]) -> None:
    """However the repetition is cut into pieces, what is given is exactly what was not delivered."""
    replay = Replay(text[:at])
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:stop] for start, stop in pairwise(bounds)]
    assert "".join(replay.feed(piece) for piece in pieces) == text[at:]
    assert replay.caught_up


@given(delivered=st.text(min_size=1, max_size=20), other=st.text(max_size=20))
def test_replay_never_gives_anything_of_another_answer(delivered: str, other: str) -> None:
    """Unless the new text begins with what was delivered, nothing is given."""
    replay = Replay(delivered)
    given_on = "".join(replay.feed(char) for char in other)
    if other.startswith(delivered):
        assert given_on == other[len(delivered) :]
    else:
        assert not given_on
        assert not replay.caught_up


STOPPED = Piece(bodies=[b"stop"], content=True, finish_reason=FinishReason.STOP)


@pytest.mark.parametrize("behind", [[CUT], [], [None], [UpstreamError("broke")]])
async def test_answer_that_said_how_it_ended_is_whole(behind: list[Exception | None]) -> None:
    """Only its usage is missing: it is not continued, which would end it twice, and no error either."""
    case = Case([*said("Once ", "upon"), STOPPED, *behind], [*said(" a"), end(1)], prefill=["", "plain"])
    assert await case.run() == "Once upon"
    assert case.outcomes() == [Outcome.OK]
    assert case.targets[1].asked == []
    assert [arrival.piece.finished for arrival in case.seen] == [False, False, False, True]
    assert case.seen[-1].bill is not None
    assert case.seen[-1].bill.usage.estimated


async def test_deadline_behind_the_end() -> None:
    """The caller has it all in time."""
    case = Case([*said("Once ", "upon"), STOPPED, None])
    plan = Plan("m", (Step(case.targets[0].spec, "model m"),))
    asked = replace(ASKED, patience=timedelta(seconds=0.1))
    pieces = [arrival.piece async for arrival in case.runner.run(plan, asked, STREAM)]
    assert pieces[-1].finished
    assert case.outcomes() == [Outcome.OK]


async def test_text_behind_an_end_is_no_end() -> None:
    """A target that names an end too early has not ended."""
    case = Case([*said("Once "), STOPPED, *said("upon "), CUT], [*said("a"), end(1)], prefill=["", "plain"])
    assert await case.run() == "Once upon a"
    assert case.outcomes() == [Outcome.CUT, Outcome.OK]


async def test_end_of_one_of_several_is_not_the_end() -> None:
    """The others may be in the middle."""
    request = read(b'{"messages":[{"role":"user","content":"hi"}],"stream":true,"n":2}')
    case = Case([*said("Once "), STOPPED, CUT])
    with pytest.raises(UpstreamTruncated):
        await case.run(request)


async def test_usage_is_of_what_was_delivered() -> None:
    """An answer that was held back and broke does not count among what the client received."""
    case = Case(
        [*said("x" * 400), CUT],
        [*said("Once "), CUT],
        [*said("y" * 400), CUT],
        [*said("upon"), end(2)],
        prefill=["", "", "plain", "plain"],
    )
    for at in (0, 2):
        case.targets[at] = FakeTarget(
            replace(case.targets[at].spec, on_cut=OnCut.HOLD), case.targets[at].script
        )
    case.runner = RunPlan(surroundings(case.targets, case.log))
    assert await case.run() == "Once upon"
    bill = case.seen[-1].bill
    assert bill is not None
    assert bill.usage.output_tokens == 4


async def test_prompt_of_a_prefilled_answer_counts_once() -> None:
    """With what of it was cached: the other prompt was longer."""
    last = end(2)
    assert last.usage is not None
    last.usage.cached_input_tokens = 900
    case = Case([*said("Once "), CUT], [*said("upon"), last], prefill=["", "plain"])
    await case.run()
    bill = case.seen[-1].bill
    assert bill is not None
    assert (bill.usage.input_tokens, bill.usage.cached_input_tokens) == (100, None)
