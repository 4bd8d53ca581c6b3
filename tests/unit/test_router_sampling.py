"""Sampling in the router: a share of the requests of keys that have it switched on, and nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import pytest

from dialects.chat_request import read
from gen.weir.auth.v1 import Sample
from gen.weir.type.v1 import Principal
from meshkit.errors import InvalidRequest, UpstreamError
from meshkit.telemetry import Logger
from services.router.answer import Answer, Asking
from services.router.domain.permissions import Caller, Permissions
from services.router.domain.target import ModelSpec
from services.router.ports import Piece
from services.router.run_plan import RunPlan
from services.router.sampled_answer import MAX_TEXT_BYTES, SampledAnswer
from services.router.samples import BATCH, WAITING, Samples
from services.router.wishes import Wishes
from tests.fakes.router import FakeAttemptLog, FakeClock, FakeTarget, spec, surroundings

MODELS = {"m": ModelSpec("m", ("local",), auto=False)}
BODY = b'{"model":"m","messages":[{"role":"user","content":"the secret plan"}],"stream":true}'


class Table:
    """Auth's table, or its absence."""

    def __init__(self) -> None:
        self.kept: list[Sample] = []
        self.batches: list[int] = []
        self.away = False

    async def __call__(self, samples: list[Sample]) -> None:
        if self.away:
            raise UpstreamError("auth does not answer")
        self.batches.append(len(samples))
        self.kept += samples


class Desk:
    """A sampled answer over one local target that plays a script."""

    def __init__(self, script: list[Piece | Exception | float | None], draw: float = 0.0) -> None:
        target = FakeTarget(spec("local", local=True), script)
        around = surroundings([target], FakeAttemptLog())
        answer = Answer(MODELS, "m", around.states, RunPlan(around), around.draw)
        self.table, self.clock = Table(), FakeClock()
        self.samples = Samples(self.table, self.clock, Logger("router", fd=-1))  # type: ignore[arg-type] # a list is a sequence
        self.subject = SampledAnswer(answer, self.samples, lambda: draw, self.clock.now)

    async def ask(self, share: float, pieces: int = 1_000) -> list[Sample]:
        """Asks, reads so many pieces, and returns what was kept."""
        caller = Caller(Principal(key_id="k"), Permissions(), sampling=share)
        async with aclosing(self.subject.answer(read(BODY), Asking(caller, "req_1", Wishes()))) as arrivals:
            async for _ in arrivals:
                pieces -= 1
                if not pieces:
                    break
        await self.samples.send()
        return self.table.kept


WHOLE: list[Piece | Exception | float | None] = [Piece(text="no "), Piece(text="idea", finished=True)]


async def test_prompt_and_answer_are_kept() -> None:
    """Once the answer has ended, with who, what and by whom."""
    (kept,) = await Desk(WHOLE).ask(1.0)
    assert (kept.request_id, kept.key_id, kept.model, kept.target) == ("req_1", "k", "m", "local")
    assert kept.answer == "no idea"
    assert "the secret plan" in kept.prompt
    assert kept.at is not None
    assert not kept.partial


async def test_nothing_is_kept_unless_it_is_switched_on() -> None:
    """Nor beyond the share."""
    assert await Desk(WHOLE).ask(0.0) == []
    assert await Desk(WHOLE, draw=0.25).ask(0.25) == []
    assert len(await Desk(WHOLE, draw=0.24).ask(0.25)) == 1


async def test_a_broken_answer_is_marked() -> None:
    """Its beginning is kept, whether the target or the client left; a request that nobody answered too."""
    desk = Desk([Piece(text="no "), Piece(text="idea"), None])
    (left,) = await desk.ask(1.0, pieces=1)
    assert (left.answer, left.partial) == ("no ", True)
    failing = Desk([UpstreamError("no")])
    with pytest.raises(UpstreamError):
        await failing.ask(1.0)
    await failing.samples.send()
    (failed,) = failing.table.kept
    assert (failed.answer, failed.target, failed.partial) == ("", "", True)


async def test_a_long_answer_is_cut() -> None:
    """At 64 KiB, between two characters."""
    long: list[Piece | Exception | float | None] = [Piece(text="\N{EURO SIGN}" * 10_000)] * 3
    (kept,) = await Desk([*long, Piece(text="x", finished=True)]).ask(1.0)
    assert MAX_TEXT_BYTES - 3 <= len(kept.answer.encode()) <= MAX_TEXT_BYTES
    assert kept.partial


async def test_samples_wait_for_auth_and_are_bounded() -> None:
    """An outage of Auth costs no request anything, and the newest are kept."""
    desk = Desk(WHOLE)
    desk.table.away = True
    for number in range(WAITING + 50):
        desk.samples.add(Sample(request_id=str(number)))
        if number % 30 == 0:
            await desk.samples.send()
    desk.table.away = False
    await desk.samples.send()
    assert [int(sample.request_id) for sample in desk.table.kept] == list(range(50, WAITING + 50))
    assert max(desk.table.batches) == BATCH


async def test_what_auth_will_never_take_keeps_nothing_back() -> None:
    """Its batch is lost, and those behind it arrive."""
    kept: list[Sample] = []

    async def send(samples: Sequence[Sample]) -> None:
        if any(not sample.request_id for sample in samples):
            raise InvalidRequest("samples: one has no time")
        kept.extend(samples)

    samples = Samples(send, FakeClock(), Logger("router", fd=-1))
    samples.add(Sample())
    for number in range(1, BATCH + 3):
        samples.add(Sample(request_id=str(number)))
    await samples.send()
    assert [sample.request_id for sample in kept] == [str(BATCH), str(BATCH + 1), str(BATCH + 2)]
