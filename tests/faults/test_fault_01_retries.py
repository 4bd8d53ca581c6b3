"""A provider that refuses or breaks before it answers: what is tried again, how soon, how often, and where."""

from __future__ import annotations

import pytest

from tests.faults.marks import BOTH_WAYS, Evidence
from tests.harness.fault_plans import TEXT
from tests.harness.fault_rig import Rig, gaps_s

TIGHT_S = 0.1
"""No retry may follow sooner."""


@BOTH_WAYS
@pytest.mark.fault(1)
def test_retry_after_that_fits_is_waited_for(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """429 with `Retry-After: 2`, once: two seconds later the same target answers."""
    reply = rig.ask("limited-once", stream=stream)
    reply.must_be_whole(TEXT)
    asked = rig.asked(reply.request_id)
    (gap_s,) = gaps_s(asked)
    evidence(f"{len(asked)} attempts, {gap_s:.1f} s apart")
    assert len({seen["model"] for seen in asked}) == 1
    assert 1.95 <= gap_s < 3
    assert reply.attempts == 2
    assert [row["outcome"] for row in rig.rows(reply.request_id, 2)] == ["failed", "ok"]


@BOTH_WAYS
@pytest.mark.fault(1)
def test_retry_after_beyond_the_budget_fails_over(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """429 with `Retry-After: 30`: nobody waits, the next target answers at once."""
    reply = rig.ask("limited-long", stream=stream)
    reply.must_be_whole(TEXT)
    asked = rig.asked(reply.request_id)
    evidence(f"retry-after 30: next target after {gaps_s(asked)[0]:.2f} s")
    assert [seen["model"].split(":")[0] for seen in asked] == ["rate_limit", "instant"]
    assert reply.seconds < 1.5
    assert reply.target.endswith(".2")


@BOTH_WAYS
@pytest.mark.fault(1)
def test_retry_after_of_nothing(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """429 with `Retry-After: 0`, always: no tight loop, at most two attempts in 1.5 s, then the next target."""
    reply = rig.ask("limited-zero", stream=stream)
    reply.must_be_whole(TEXT)
    asked = [seen for seen in rig.asked(reply.request_id) if seen["model"].startswith("rate_limit")]
    evidence(f"retry-after 0: {len(asked)} attempts, {gaps_s(asked)} s apart, then the next target")
    assert all(gap >= TIGHT_S for gap in gaps_s(asked))
    assert sum(seen["begun_ms"] < asked[0]["begun_ms"] + 1_500 for seen in asked) <= 2


@BOTH_WAYS
@pytest.mark.fault(1)
def test_retry_after_reaches_the_client(rig: Rig, *, stream: bool) -> None:
    """With nowhere else to go the client gets the 429 and the time to come back, after one attempt."""
    reply = rig.ask("limited-long-alone", stream=stream)
    reply.must_be_error("rate_limit_exceeded", 429)
    assert 28 <= float(reply.headers["retry-after"]) <= 30
    assert len(rig.asked(reply.request_id)) == 1


@BOTH_WAYS
@pytest.mark.parametrize("plan", ["limited", "limited-alone"])
@pytest.mark.fault(2)
def test_rate_limit_without_a_time(rig: Rig, evidence: Evidence, plan: str, *, stream: bool) -> None:
    """429 always: backs off further each time, at most four attempts in three seconds and six in all, then goes on."""
    reply = rig.ask(plan, stream=stream)
    asked = [seen for seen in rig.asked(reply.request_id) if seen["model"].startswith("rate_limit")]
    gaps = gaps_s(asked)
    evidence(f"{len(asked)} attempts, {', '.join(f'{gap:.2f}' for gap in gaps)} s apart")
    assert 2 <= len(asked) <= 6
    assert sum(begun["begun_ms"] < asked[0]["begun_ms"] + 3_000 for begun in asked) <= 4
    assert all(gap >= TIGHT_S for gap in gaps)
    if plan == "limited":
        reply.must_be_whole(TEXT)
    else:
        reply.must_be_error("rate_limit_exceeded", 429)
    assert len(rig.rows(reply.request_id, reply.attempts or len(asked))) == len(rig.asked(reply.request_id))


@BOTH_WAYS
@pytest.mark.fault(2)
def test_back_off_has_jitter(rig: Rig, *, stream: bool) -> None:
    """Two requests that are refused alike do not come back after the same time."""
    first = [gaps_s(rig.asked(rig.ask("limited-alone", stream=stream).request_id)) for _ in range(2)]
    assert first[0] != first[1]


@BOTH_WAYS
@pytest.mark.fault(3)
def test_an_error_once_is_retried_there(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """500 once: one retry on the same target succeeds, and the next target is not asked."""
    reply = rig.ask("failed-once", stream=stream)
    reply.must_be_whole(TEXT)
    asked = rig.asked(reply.request_id)
    evidence(f"{len(asked)} attempts at the same target in {reply.seconds:.2f} s")
    assert len(asked) == 2
    assert len({seen["model"] for seen in asked}) == 1
    assert gaps_s(asked)[0] >= TIGHT_S
    assert reply.attempts == 2
    assert [row["outcome"] for row in rig.rows(reply.request_id, 2)] == ["failed", "ok"]


@BOTH_WAYS
@pytest.mark.fault(4)
def test_an_error_always_fails_over(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """503 always: the next target answers within the retry budget."""
    reply = rig.ask("failing", stream=stream)
    reply.must_be_whole(TEXT)
    asked = rig.asked(reply.request_id)
    evidence(f"{len(asked)} attempts, answered in {reply.seconds:.2f} s")
    assert len(asked) <= 6
    assert reply.seconds < 5
    assert reply.target.endswith(".2")
    assert len(rig.rows(reply.request_id, len(asked))) == reply.attempts


@BOTH_WAYS
@pytest.mark.fault(4)
def test_an_error_with_nowhere_to_go(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """503 always and no other target: the client gets that error, without the secret that the provider quotes."""
    reply = rig.ask("failing-alone", stream=stream)
    message = reply.must_be_error("upstream_error", 503)
    asked = rig.asked(reply.request_id)
    evidence(f"alone: {len(asked)} attempts, then {message[:40]!r}")
    assert "HTTP 503" in message
    assert "It failed" in message
    assert "sk-" not in reply.body.decode()
    assert 1 <= len(asked) <= 6


@BOTH_WAYS
@pytest.mark.fault(5)
def test_a_reset_before_the_answer_is_retried(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """A TCP reset before the headers, once: nothing was delivered, so it is asked again, and answers."""
    reply = rig.ask("reset-once", stream=stream)
    reply.must_be_whole(TEXT)
    asked = rig.asked(reply.request_id)
    evidence(f"{len(asked)} attempts in {reply.seconds:.2f} s")
    assert len(asked) == 2
    assert [row["outcome"] for row in rig.rows(reply.request_id, 2)] == ["failed", "ok"]
