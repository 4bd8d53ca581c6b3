"""A provider that is down for a while: it is left alone, and comes back by itself."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.marks import BOTH_WAYS, SLACK_S, Evidence
from tests.harness.fault_plans import BREAKER, DOWN_S, TEXT
from tests.harness.fault_rig import Rig
from tests.harness.reply import Reply

REQUESTS = 20
AT_ONCE = 4
VOLLEY = 8
ATTEMPTS_EACH = 2
"""At a target that fails, by default."""
PROBE_S = BREAKER["probe_s"]


@BOTH_WAYS
@pytest.mark.fault(15)
def test_a_primary_that_is_down(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """Twenty requests while it is down: all answered by the fallback, and the primary soon left alone.

    Of many at once a single one finds out whether it is back; within one probe interval of its recovery it is.
    """
    replies = _ask(rig, REQUESTS, AT_ONCE, stream=stream)
    begun_s = min(reply.begun_s for reply in replies)
    breaker = rig.metric("weir_router_breaker_open", target=f"down.{'stream' if stream else 'unary'}.1")
    time.sleep(PROBE_S)  # the breaker's own time, then a probe is due
    volley = _ask(rig, VOLLEY, VOLLEY, stream=stream)
    assert max(reply.ended_s for reply in volley) < begun_s + DOWN_S, "too slow: it is up again already"
    while (reply := _ask(rig, 1, 1, stream=stream)[0]).target.endswith(".2"):
        assert reply.ended_s < begun_s + DOWN_S + PROBE_S + SLACK_S, "it never came back"
        time.sleep(0.05)  # as clients come
    back_s = reply.ended_s - begun_s - DOWN_S
    asked, probing = _askers(rig, replies), _askers(rig, volley)
    evidence(
        f"{REQUESTS} of {REQUESTS} by the fallback, {len(asked)} of them asked the primary; "
        f"{len(probing)} probe in a volley of {VOLLEY}; back {max(back_s, 0):.1f} s after its recovery"
    )
    assert {reply.target[-2:] for reply in (*replies, *volley)} == {".2"}
    assert breaker == 1
    # Those it takes to open, those that were under way then, and one a probe interval.
    assert len(asked) <= BREAKER["failures"] + AT_ONCE + (volley[0].begun_s - begun_s) / PROBE_S
    assert sum(asked) <= len(asked) * ATTEMPTS_EACH
    assert len(probing) == 1
    assert rig.metric("weir_router_breaker_open", target=reply.target) == 0


def _ask(rig: Rig, requests: int, at_once: int, *, stream: bool) -> list[Reply]:
    """Answers, each whole, to so many requests."""
    with ThreadPoolExecutor(at_once) as clients:
        replies = list(clients.map(lambda _: rig.ask("down", stream=stream), range(requests)))
    for reply in replies:
        reply.must_be_whole(TEXT)
    return replies


def _askers(rig: Rig, replies: list[Reply]) -> list[int]:
    """How often the primary was asked by each request that asked it at all."""
    labels = [reply.request_id for reply in replies]
    asked = [seen["request_id"] for seen in rig.provider.log() if seen["model"].startswith("status:")]
    return [asked.count(label) for label in labels if label in asked]
