"""Answers that are whole in spite of a fault in their form."""

from __future__ import annotations

import pytest

from tests.faults.marks import BOTH_WAYS, SLACK_S, Evidence
from tests.harness.fault_plans import SHORT, TEXT
from tests.harness.fault_rig import Rig
from tests.harness.running_weir import wait_for


@pytest.mark.fault(10)
def test_a_malformed_event_is_skipped(rig: Rig, evidence: Evidence) -> None:
    """One event that is no JSON among good ones: the rest is delivered, the event is counted."""
    before = _malformed(rig)
    reply = rig.ask("malformed", stream=True)
    reply.must_be_whole(TEXT)
    wait_for("the count of it", lambda: _malformed(rig) == before + 1)
    evidence("60 of 60 words, 1 counted in weir_router_malformed_events_total")
    assert reply.attempts == 1
    assert rig.rows(reply.request_id, 1)[0]["outcome"] == "ok"


def _malformed(rig: Rig) -> float:
    return rig.metric("weir_router_malformed_events_total", target="malformed.stream.1")


@pytest.mark.parametrize("plan", ["no-done", "done-hangs"])
@pytest.mark.fault(11)
def test_a_stream_without_its_end_mark(rig: Rig, evidence: Evidence, plan: str) -> None:
    """Complete but for `[DONE]`, or with it and then an open connection: whole at once, with usage."""
    reply = rig.ask(plan, stream=True)
    reply.must_be_whole(TEXT)
    evidence(f"{plan}: whole in {reply.seconds:.2f} s")
    assert reply.seconds < SLACK_S
    assert reply.attempts == 1
    (row,) = rig.rows(reply.request_id, 1)
    assert row["outcome"] == "ok"
    if plan == "no-done":
        assert reply.usage is not None
        assert reply.usage["completion_tokens"] == row["output_tokens"] == 60
        assert not row["usage_estimated"]


@pytest.mark.parametrize("plan", ["finish-cut", "finish-hangs"])
@pytest.mark.fault(11)
def test_a_stream_that_breaks_after_its_finish_reason(rig: Rig, evidence: Evidence, plan: str) -> None:
    """All was said, and only the end is missing: that is whole, said once, and nobody else is asked."""
    reply = rig.ask(plan, stream=True)
    reply.must_be_whole(TEXT)
    evidence(f"{plan}: whole in {reply.seconds:.2f} s")
    assert reply.seconds < SHORT["inter_token_s"] + SLACK_S
    assert len(rig.asked(reply.request_id)) == 1
    (row,) = rig.rows(reply.request_id, 1)
    assert (row["outcome"], row["usage_estimated"]) == ("ok", True)


@BOTH_WAYS
@pytest.mark.fault(22)
def test_usage_that_is_not_told(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """The provider says nothing of usage: the ledger holds an estimate, and says that it is one."""
    reply = rig.ask("no-usage", stream=stream)
    reply.must_be_whole(TEXT)
    (row,) = rig.rows(reply.request_id, 1)
    evidence(f"estimated: {row['input_tokens']} + {row['output_tokens']} tokens")
    assert row["usage_estimated"] is True
    # A token for every four bytes; a finish reason that comes in a batch of its own counts as one more.
    assert 0 <= row["output_tokens"] - -(-len(TEXT.encode()) // 4) <= 1
    assert row["input_tokens"] > 0
    told = rig.ask("good", stream=stream)
    assert rig.rows(told.request_id, 1)[0]["usage_estimated"] is False
