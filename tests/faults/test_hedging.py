"""Hedging: where a target may be hedged and is later than it nearly always is, the next one is asked too."""

from __future__ import annotations

from tests.faults.marks import SLACK_S, Evidence
from tests.harness.fault_plans import LATE_S, PROMPT_ONES, TEXT
from tests.harness.fault_rig import Rig, gaps_s

LET_GO_S = 1.0


def test_off_by_default(rig: Rig) -> None:
    """A late first token within its limit is waited for, and nobody else is asked."""
    _warm_up(rig, "unhedged")
    reply = rig.ask("unhedged", stream=True)
    reply.must_be_whole(TEXT)
    assert reply.seconds >= LATE_S
    assert len(rig.asked(reply.request_id)) == 1


def test_the_first_token_wins(rig: Rig, evidence: Evidence) -> None:
    """The next target answers long before the late one, which is let go within a second; both are in the ledger."""
    _warm_up(rig, "hedged")
    reply = rig.ask("hedged", stream=True)
    reply.must_be_whole(TEXT)
    late, winner = rig.asked(reply.request_id)
    evidence(f"answered in {reply.seconds:.2f} s instead of {LATE_S} s")
    assert reply.seconds < min(SLACK_S, LATE_S)
    assert reply.target.endswith(".2")
    assert winner["model"].startswith("instant")
    (gap_s,) = gaps_s([late, winner])
    assert late["client_gone_ms"] / 1_000 - gap_s < LET_GO_S
    rows = {row["target_name"][-2:]: row for row in rig.rows(reply.request_id, 2)}
    assert (rows[".1"]["outcome"], rows[".2"]["outcome"]) == ("cancelled", "ok")
    assert rows[".1"]["output_tokens"] == 0


def _warm_up(rig: Rig, plan: str) -> None:
    for _ in range(PROMPT_ONES):
        rig.ask(plan, stream=True).must_be_whole(TEXT)
