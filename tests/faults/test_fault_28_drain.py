"""The end of a Weir under load."""

from __future__ import annotations

import signal
import time

import pytest

from tests.fakes.provider_exchange import words
from tests.faults.marks import Evidence
from tests.harness.accounts import settled
from tests.harness.crowd import Question, Told, Verdict, asking
from tests.harness.fault_plans import LONG_WORDS, TEXT
from tests.harness.fault_rig import Rig
from tests.harness.running_weir import wait_for

DRAIN_S = 30
LONG = Question("long.stream", stream=True, cloud_text="".join(words(LONG_WORDS)))
LOAD = (
    Question("good.stream", stream=True, cloud_text=TEXT),
    Question("good.stream", stream=True, cloud_text=TEXT),
    Question("good.unary", cloud_text=TEXT),
    Question("failed-once.unary", cloud_text=TEXT),
)
CLOSING_S = 0.5
"""Around the end of listening: a connection that the kernel made and nobody accepted is reset, with nothing read."""


@pytest.mark.timeout(300)  # it starts a Weir again
@pytest.mark.fault(28)
def test_sigterm_under_load(rig: Rig, evidence: Evidence) -> None:
    """What was accepted is answered whole, a stream of three seconds too; then nobody listens. No error is seen."""
    weir = rig.weir
    with asking(weir.edge, weir.key, (*LOAD, LONG)) as crowd:
        wait_for(
            "answers",
            lambda: all(crowd.whole_since(0.0, model=one.model, stream=one.stream) for one in LOAD),
        )
        told_s = time.monotonic()
        status = weir.stop(signal.SIGTERM)
        ended_s = time.monotonic()
    rig.start()
    rows = settled(weir, rig.provider, crowd.told, crowd.prefix)
    wholes = crowd.of(Verdict.WHOLE)
    in_flight = [told for told in wholes if told.begun_s < told_s < told.ended_s]
    evidence(
        f"{crowd.summary()}; {len(in_flight)} in flight at SIGTERM finished; down after {ended_s - told_s:.1f} s"
    )
    assert status == 0
    closed_s = min(told.begun_s for told in crowd.of(Verdict.NO_CONNECTION))
    assert told_s < closed_s
    known = {row["request_id"] for row in rows}
    assert [told for told in crowd.unlucky() if not _was_never_accepted(told, closed_s, known)] == []
    assert [told for told in in_flight if told.question == LONG]
    assert ended_s - told_s < DRAIN_S
    assert not {"aborted", "cancelled"} & {row["outcome"] for row in rows}


def _was_never_accepted(told: Told, closed_s: float, known: set[str]) -> bool:
    """Nobody listened any more, or had accepted it when listening ended; such a request is in no ledger."""
    if told.verdict is Verdict.NO_CONNECTION:
        return True
    in_the_queue = told.verdict is Verdict.BROKEN and abs(told.begun_s - closed_s) < CLOSING_S
    return in_the_queue and told.request_id not in known
