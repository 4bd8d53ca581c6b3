"""Refusals that are about the request itself."""

from __future__ import annotations

import pytest

from tests.faults.marks import BOTH_WAYS, Evidence
from tests.harness.fault_plans import TEXT
from tests.harness.fault_rig import Rig


@BOTH_WAYS
@pytest.mark.fault(12)
def test_a_larger_context_is_asked(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """400 `context_length_exceeded`: not asked again, and of the others only the one with a larger context."""
    reply = rig.ask("context", stream=stream)
    reply.must_be_whole(TEXT)
    asked = rig.asked(reply.request_id)
    evidence(f"8,192 tokens refused once, 4,096 passed over, {reply.target} (128,000) answered")
    assert len(asked) == 2
    assert reply.target.endswith(".3")
    rows = rig.rows(reply.request_id, 2)
    assert [row["target_name"][-2:] for row in rows] == [".1", ".3"]
    assert rows[0]["error_reason"] == "CONTEXT_TOO_LONG"


@BOTH_WAYS
@pytest.mark.fault(12)
def test_no_larger_context(rig: Rig, *, stream: bool) -> None:
    """With no other target it is the provider's 400, after one attempt."""
    reply = rig.ask("context-alone", stream=stream)
    message = reply.must_be_error("context_length_exceeded", 400)
    assert "maximum context length" in message
    assert len(rig.asked(reply.request_id)) == 1


@BOTH_WAYS
@pytest.mark.fault(13)
def test_a_content_filter(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """A prompt that is refused for its content is shown to nobody else, and the client reads why."""
    reply = rig.ask("filtered", stream=stream)
    message = reply.must_be_error("content_policy_violation", 400)
    evidence(f"1 attempt, client reads {message!r}")
    assert message == "The prompt was filtered"
    assert len(rig.asked(reply.request_id)) == 1
    (row,) = rig.rows(reply.request_id, 1)
    assert (row["outcome"], row["error_reason"]) == ("failed", "CONTENT_FILTERED")
