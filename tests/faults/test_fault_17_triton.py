"""The local Triton: its model's process dead while its health says 200, and its queue full."""

from __future__ import annotations

import os
import signal
import time
import urllib.request

import pytest

from tests.faults.marks import BOTH_WAYS, SLACK_S, Evidence
from tests.harness.busy_triton import busy_triton
from tests.harness.doomed import Doomed
from tests.harness.fault_plans import HEAL_EVERY_S, QUEUE, QUEUE_S, TEXT
from tests.harness.fault_rig import Rig
from tests.harness.running_weir import wait_for

pytestmark = pytest.mark.separate_only
MANY = 8
"""More than a breaker takes for failures."""


@BOTH_WAYS
@pytest.mark.fault(17)
def test_a_dead_model(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """Its process is dead and its health says 200: known by its first answer, passed over, reloaded, and back."""
    _local_answers(rig, stream=stream)
    printed = len(rig.weir.output)
    os.kill(Doomed(rig.weir, rig.provider).stub(), signal.SIGKILL)
    killed_s = time.monotonic()
    first = rig.post("local-first", stream=stream)
    health, breaker = _health(rig), rig.metric("weir_router_breaker_open", target="local")
    others = [rig.post("local-first", stream=stream) for _ in range(3)]
    for reply in (first, *others):
        reply.must_be_whole(TEXT)
        assert reply.seconds < SLACK_S
    rows = rig.rows(first.request_id, 2)
    wait_for("the reload", lambda: "had died and was loaded again" in rig.weir.output[printed:])
    reloaded_s = time.monotonic()
    _local_answers(rig, stream=stream, limit_s=1 + SLACK_S)
    evidence(
        f"health {health}; next target in {first.seconds:.2f} s; reloaded after {reloaded_s - killed_s:.1f} s, "
        f"back {time.monotonic() - reloaded_s:.1f} s later"
    )
    assert (health, breaker) == (200, 1)
    assert [(row["target_name"], row["outcome"]) for row in rows] == [("local", "failed"), ("beside", "ok")]
    # It was known to be down: nobody else had to find out.
    assert [len(rig.rows(reply.request_id, reply.attempts)) for reply in others[:1]] == [1]
    assert reloaded_s - killed_s < 10 * HEAL_EVERY_S


@BOTH_WAYS
@pytest.mark.fault(18)
def test_a_full_queue(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """Refused for its full queue: the next target answers at once, and the local one is not taken for broken."""
    _local_answers(rig, stream=stream)
    with busy_triton(rig, waiting=QUEUE):
        replies = [rig.post("local-first", stream=stream) for _ in range(MANY)]
    for reply in replies:
        reply.must_be_whole(TEXT)
        rows = rig.rows(reply.request_id, 2)
        assert [(row["target_name"], row["error_reason"]) for row in rows] == [
            ("local", "RATE_LIMITED"),
            ("beside", ""),
        ]
    slowest_s = max(reply.seconds for reply in replies)
    assert rig.metric("weir_router_breaker_open", target="local") == 0
    _local_answers(rig, stream=stream, limit_s=SLACK_S)
    evidence(f"{MANY} of {MANY} refused and answered elsewhere within {slowest_s:.2f} s; breaker closed")
    assert slowest_s < SLACK_S


@BOTH_WAYS
@pytest.mark.fault(18)
def test_too_long_in_the_queue(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """Timed out while it waited for a slot: likewise."""
    _local_answers(rig, stream=stream)
    with busy_triton(rig, waiting=1):
        reply = rig.post("local-first", stream=stream)
    reply.must_be_whole(TEXT)
    evidence(f"expired after {reply.seconds:.1f} s in a queue of {QUEUE_S} s, answered elsewhere")
    assert QUEUE_S - 0.5 < reply.seconds < QUEUE_S + SLACK_S
    assert rig.rows(reply.request_id, 2)[0]["error_reason"] == "RATE_LIMITED"
    _local_answers(rig, stream=stream, limit_s=SLACK_S)


def _local_answers(rig: Rig, *, stream: bool, limit_s: float = 20.0) -> None:
    """Returns once the local model answers itself."""

    def look() -> bool:
        return rig.post("local-first", stream=stream, max_tokens=2).target == "local"

    wait_for("an answer of the local model", look, limit_s)


def _health(rig: Rig) -> int:
    port = rig.weir.document["ports"]["triton_http"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as answer:
        return int(answer.status)
