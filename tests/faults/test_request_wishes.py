"""What one request may say of its own routing, where targets fail."""

from __future__ import annotations

from typing import Any

from tests.faults.marks import BOTH_WAYS, SLACK_S
from tests.harness.fault_plans import TEXT
from tests.harness.fault_rig import Rig
from tests.harness.running_weir import wait_for


@BOTH_WAYS
def test_fallbacks_of_the_body(rig: Rig, *, stream: bool) -> None:
    """Models named in `fallbacks` are asked when the request's own model fails; no provider sees the list."""
    reply = rig.ask("failing-alone", stream=stream, fallbacks=["html-alone.unary", "good.unary"])
    reply.must_be_whole(TEXT)
    asked = rig.asked(reply.request_id)
    assert reply.target == "good.unary.1"
    assert [seen["model"].partition(":")[0] for seen in asked] == ["status", "status", "html", "instant"]
    assert not any("fallbacks" in seen["body_keys"] for seen in asked)


@BOTH_WAYS
def test_only_these_targets(rig: Rig, *, stream: bool) -> None:
    """`x-weir-targets` leaves only targets of the plan, in the request's order."""
    plan = f"two-fail.{'stream' if stream else 'unary'}"
    reply = rig.ask("two-fail", stream=stream, headers={"x-weir-targets": f"{plan}.3,{plan}.1"})
    reply.must_be_whole(TEXT)
    assert reply.target == f"{plan}.3"
    assert reply.attempts == 1
    refused = rig.ask("two-fail", stream=stream, headers={"x-weir-targets": f"{plan}.2"})
    refused.must_be_error("upstream_error", 503)
    assert {seen["model"].partition(":")[0] for seen in rig.asked(refused.request_id)} == {"reset"}


@BOTH_WAYS
def test_a_deadline(rig: Rig, *, stream: bool) -> None:
    """A request that waits no longer gets a timeout, its provider is let go, and nobody else is asked."""
    reply = rig.ask("mute-then-good", stream=stream, headers={"x-weir-deadline-ms": "500"})
    reply.must_be_error("timeout", 504)
    assert 0.45 <= reply.seconds < 0.5 + SLACK_S
    (row,) = rig.rows(reply.request_id, 1)
    assert row["outcome"] == "cancelled"
    (seen,) = wait_for("its provider to be let go", lambda: _let_go(rig, reply.request_id))
    assert seen["client_gone_ms"] < 1_000 * (0.5 + SLACK_S)


def _let_go(rig: Rig, request_id: str) -> list[dict[str, Any]] | None:
    asked = rig.asked(request_id)
    return asked if all(seen["gone"] for seen in asked) else None
