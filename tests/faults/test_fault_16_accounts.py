"""What the answer and the ledger say of a request that failed over."""

from __future__ import annotations

import pytest

from tests.faults.marks import BOTH_WAYS, Evidence
from tests.harness.fault_plans import TEXT
from tests.harness.fault_rig import Rig


@BOTH_WAYS
@pytest.mark.parametrize("plan", ["failing", "limited-long", "html", "silent"])
@pytest.mark.fault(16)
def test_a_failed_attempt_is_no_completion(rig: Rig, evidence: Evidence, plan: str, *, stream: bool) -> None:
    """The answer names the model that gave it and its usage; failed attempts are rows of nothing."""
    reply = rig.ask(plan, stream=stream)
    reply.must_be_whole(TEXT)
    asked = rig.asked(reply.request_id)
    *failed, answered = rig.rows(reply.request_id, len(asked))
    evidence(f"{plan}: {len(failed)} failed rows of 0 tokens, 1 row of {answered['output_tokens']}")
    named = {document["model"] for document in reply.documents}
    assert named == {answered["target_model"]} == {asked[-1]["model"]}
    assert reply.usage is not None
    assert reply.usage["completion_tokens"] == answered["output_tokens"] == 60
    assert reply.usage["prompt_tokens"] == answered["input_tokens"]
    assert [row["outcome"] for row in failed] == ["failed"] * len(failed)
    assert {(row["input_tokens"], row["output_tokens"]) for row in failed} == {(0, 0)}
    assert [row["attempt"] for row in (*failed, answered)] == list(range(1, len(asked) + 1))
    assert [seen["model"] for seen in asked] == [row["target_model"] for row in (*failed, answered)]
