"""A provider that says nothing, or nothing yet."""

from __future__ import annotations

import pytest

from tests.faults.marks import BOTH_WAYS, SLACK_S, Evidence
from tests.harness.fault_plans import SHORT, TEXT
from tests.harness.fault_rig import Rig


@BOTH_WAYS
@pytest.mark.fault(6)
def test_silence_is_ended(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """Accepts and never answers: the first-token limit (unary: the total limit) ends it, and the next target answers.

    The silent one is let go at once and asked no second time.
    """
    reply = rig.ask("silent", stream=stream)
    reply.must_be_whole(TEXT)
    limit_s = SHORT["first_token_s" if stream else "total_s"]
    silent, answered = rig.asked(reply.request_id)
    evidence(f"answered in {reply.seconds:.1f} s (limit {limit_s} s), the silent one asked once")
    assert limit_s <= reply.seconds < limit_s + SLACK_S
    assert silent["model"].startswith("silent")
    assert answered["model"].startswith("instant")
    assert silent["client_gone_ms"] < 1_000 * (limit_s + SLACK_S)
    rows = rig.rows(reply.request_id, 2)
    assert [(row["outcome"], row["error_reason"]) for row in rows] == [
        ("failed", "UPSTREAM_TIMEOUT"),
        ("ok", ""),
    ]
    assert (rows[0]["input_tokens"], rows[0]["output_tokens"]) == (0, 0)


@BOTH_WAYS
@pytest.mark.fault(6)
def test_silence_with_nowhere_to_go(rig: Rig, *, stream: bool) -> None:
    """Alone it is a timeout, after one attempt."""
    reply = rig.ask("silent-alone", stream=stream)
    reply.must_be_error("timeout", 504)
    assert len(rig.asked(reply.request_id)) == 1
    assert reply.seconds < SHORT["first_token_s" if stream else "total_s"] + SLACK_S


@pytest.mark.fault(7)
def test_a_late_first_token(rig: Rig, evidence: Evidence) -> None:
    """Headers at once and the first token after 20 s: headers are no token, so the next target answers."""
    reply = rig.ask("late", stream=True)
    reply.must_be_whole(TEXT)
    late, answered = rig.asked(reply.request_id)
    evidence(f"answered in {reply.seconds:.1f} s (limit {SHORT['first_token_s']} s); headers are no token")
    assert SHORT["first_token_s"] <= reply.seconds < SHORT["first_token_s"] + SLACK_S
    assert late["bytes_sent"] > 0
    assert late["client_gone_ms"] < 1_000 * (SHORT["first_token_s"] + SLACK_S)
    assert answered["model"].startswith("instant")
    assert rig.rows(reply.request_id, 2)[0]["error_reason"] == "UPSTREAM_TIMEOUT"
