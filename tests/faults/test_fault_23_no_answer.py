"""Providers that give something else than an answer, or cannot be reached, one or all of them."""

from __future__ import annotations

import asyncio

import pytest

from gen.weir.router.v1 import GenerateRequest
from gen.weir.router.v1.service import RouterClient
from gen.weir.type.v1 import ChatMessage, Role
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import WeirError
from tests.faults.marks import BOTH_WAYS, SLACK_S, Evidence
from tests.harness.fault_plans import SHORT, TEXT
from tests.harness.fault_rig import Rig

MOST_ATTEMPTS = 6
"""Of one request, whatever its plan."""
ALL_WAITS_S = 3.0
"""The product's retry budget at one target."""


@BOTH_WAYS
@pytest.mark.parametrize("plan", ["html", "empty", "huge", "huge-event", "gzip"])
@pytest.mark.fault(23)
def test_rubbish_fails_over(rig: Rig, evidence: Evidence, plan: str, *, stream: bool) -> None:
    """200 with a web page, nothing, too much, or broken gzip: another target answers, nothing of it is passed on."""
    reply = rig.ask(plan, stream=stream)
    reply.must_be_whole(TEXT)
    rows = rig.rows(reply.request_id, 2)
    evidence(f"{plan}: answered in {reply.seconds:.2f} s")
    assert [(row["outcome"], row["error_reason"]) for row in rows] == [
        ("failed", "UPSTREAM_ERROR"),
        ("ok", ""),
    ]
    assert b"log in" not in reply.body


@BOTH_WAYS
@pytest.mark.fault(23)
def test_rubbish_with_nowhere_to_go(rig: Rig, *, stream: bool) -> None:
    """Alone it is an upstream error without a word of the page."""
    reply = rig.ask("html-alone", stream=stream)
    reply.must_be_error("upstream_error", 503)
    assert b"log in" not in reply.body
    assert b"<" not in reply.body


@BOTH_WAYS
@pytest.mark.parametrize("plan", ["untrusted", "nameless", "hanging"])
@pytest.mark.fault(24)
def test_a_provider_that_cannot_be_reached(rig: Rig, evidence: Evidence, plan: str, *, stream: bool) -> None:
    """A certificate that nobody vouches for, a name that nobody has, a connection that hangs: the next one answers."""
    reply = rig.ask(plan, stream=stream)
    reply.must_be_whole(TEXT)
    evidence(f"{plan}: answered in {reply.seconds:.2f} s")
    assert reply.seconds < SHORT["connect_s"] + SLACK_S
    assert reply.target.endswith(".2")
    rows = rig.rows(reply.request_id, 2)
    expected = "UPSTREAM_TIMEOUT" if plan == "hanging" else "UPSTREAM_ERROR"
    assert rows[0]["error_reason"] == expected or plan == "nameless"
    assert rig.untrusted.seen == [], "a certificate was waived"


@BOTH_WAYS
@pytest.mark.fault(25)
def test_two_targets_fail(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """The third one answers, soon."""
    reply = rig.ask("two-fail", stream=stream)
    reply.must_be_whole(TEXT)
    evidence(f"third target after {len(rig.asked(reply.request_id)) - 1} failures in {reply.seconds:.1f} s")
    assert reply.target.endswith(".3")
    assert reply.seconds < 2 * ALL_WAITS_S
    assert len(rig.rows(reply.request_id, reply.attempts)) == reply.attempts


@BOTH_WAYS
@pytest.mark.parametrize("plan", ["three-fail", "two-limited"])
@pytest.mark.fault(25)
def test_the_last_target_has_its_turn(rig: Rig, evidence: Evidence, plan: str, *, stream: bool) -> None:
    """Retries at the first targets do not use up the attempts that the last one needs."""
    reply = rig.ask(plan, stream=stream)
    reply.must_be_whole(TEXT)
    asked = rig.asked(reply.request_id)
    evidence(f"{plan}: answered by the last of the plan at attempt {len(asked)}")
    assert len(asked) <= MOST_ATTEMPTS


@BOTH_WAYS
@pytest.mark.fault(25)
def test_all_targets_fail(rig: Rig, evidence: Evidence, *, stream: bool) -> None:
    """The first target's error, in bounded time."""
    reply = rig.ask("all-fail", stream=stream)
    message = reply.must_be_error("upstream_error", 503)
    asked = rig.asked(reply.request_id)
    evidence(f"all fail: {len(asked)} attempts, the first one's error after {reply.seconds:.1f} s")
    assert "HTTP 500" in message
    assert reply.seconds < 2 * ALL_WAITS_S + SHORT["first_token_s" if stream else "total_s"] + SLACK_S
    rows = rig.rows(reply.request_id, len(asked))
    assert {row["outcome"] for row in rows} == {"failed"}
    assert [row["target_name"][-1] for row in rows] == sorted(row["target_name"][-1] for row in rows)


@pytest.mark.fault(25)
def test_the_attempts_are_listed(rig: Rig) -> None:
    """A typed client finds every attempt in the error's details."""
    error = asyncio.run(_failure(rig))
    attempts = error.details["attempts"]
    for number, reason in ((1, "UPSTREAM_ERROR"), (2, "UPSTREAM_ERROR"), (3, "UPSTREAM_TIMEOUT")):
        assert f"all-fail.stream.{number}: {reason}" in attempts


async def _failure(rig: Rig) -> WeirError:
    channel = open_channel(rig.weir.edge)
    router = RouterClient(ChannelTransport(channel, mesh_codec()))
    messages = [ChatMessage(role=Role.USER, content="Say hello.")]
    request = GenerateRequest(model="all-fail.stream", messages=messages)
    try:
        with pytest.raises(WeirError) as raised:
            async for _ in router.generate(request, metadata=(("authorization", f"Bearer {rig.weir.key}"),)):
                pass
    finally:
        await channel.close()
    return raised.value
