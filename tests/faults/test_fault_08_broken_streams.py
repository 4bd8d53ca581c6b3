"""Streams that break after the first token: the client gets the whole answer or a clear error, no short success."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gen.weir.router.v1 import GenerateRequest
from gen.weir.router.v1.service import RouterClient
from gen.weir.type.v1 import ChatMessage, Role
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import UpstreamTruncated
from tests.fakes.provider_exchange import words
from tests.faults.marks import SLACK_S, Evidence
from tests.harness.fault_plans import SECRET, SHORT, TEXT
from tests.harness.fault_rig import Rig
from tests.harness.reply import MESSAGES

BEGUN = "".join(words(40))
"""What was said before the break."""
WORD = words(1)[0]
ERROR = {"x-weir-on-cut": "error"}
HOLD = {"x-weir-on-cut": "hold"}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize(
    ("plan", "attempts", "way"),
    [
        pytest.param("cut", 2, "replayed", marks=pytest.mark.fault(8)),
        pytest.param("cut-to-prefill", 2, "continued", marks=pytest.mark.fault(8)),
        pytest.param("cut-twice", 3, "continued twice", marks=pytest.mark.fault(8)),
        pytest.param("stall", 2, "after a stall, replayed", marks=pytest.mark.fault(9)),
        pytest.param("error-event", 2, "after an error event, replayed", marks=pytest.mark.fault(21)),
    ],
)
def test_a_broken_stream_is_completed(
    rig: Rig, evidence: Evidence, plan: str, attempts: int, way: str
) -> None:
    """The next target goes on where it broke: by prefill where it can, else by saying the same again."""
    reply = rig.ask(plan, stream=True)
    reply.must_be_whole(TEXT)
    asked = rig.asked(reply.request_id)
    evidence(f"{way}: {len(asked)} attempts, 60 of 60 words in {reply.seconds:.1f} s")
    assert len(asked) == attempts
    prefilled = [seen["messages"] > len(MESSAGES) for seen in asked]
    assert prefilled == [False, *([True] * (attempts - 1) if "prefill" in asked[1]["model"] else [False])]
    assert reply.seconds < (SHORT["inter_token_s"] + SLACK_S if plan == "stall" else SLACK_S)
    rows = rig.rows(reply.request_id, attempts)
    assert [row["outcome"] for row in rows] == ["cut"] * (attempts - 1) + ["ok"]
    assert all(row["output_tokens"] > 0 for row in rows)
    # What the client received, not what all legs together made; a leg that was cut is estimated.
    assert reply.usage is not None
    told, last = reply.usage["completion_tokens"], rows[-1]["output_tokens"]
    if "prefill" in asked[1]["model"]:
        assert told == sum(row["output_tokens"] for row in rows) > last == 60 - 40
    else:
        assert told == last == 60


@pytest.mark.parametrize(
    ("plan", "code", "headers"),
    [
        pytest.param("cut-alone", "upstream_truncated", {}, marks=pytest.mark.fault(8)),
        pytest.param("cut-to-other", "upstream_truncated", {}, marks=pytest.mark.fault(8)),
        pytest.param("cut", "upstream_truncated", ERROR, marks=pytest.mark.fault(8)),
        pytest.param("stall-alone", "upstream_stalled", {}, marks=pytest.mark.fault(9)),
        pytest.param("stall", "upstream_stalled", ERROR, marks=pytest.mark.fault(9)),
        pytest.param("error-event-alone", "upstream_truncated", {}, marks=pytest.mark.fault(21)),
    ],
)
def test_a_stream_that_nobody_can_complete(
    rig: Rig, evidence: Evidence, plan: str, code: str, headers: dict[str, str]
) -> None:
    """Nobody else, somebody who says otherwise, or a client that wants none: an error event ends it, unmistakably."""
    reply = rig.ask(plan, stream=True, headers=headers)
    reply.must_be_error(code, 200)
    evidence(f"{plan}{' (error)' if headers else ''}: 40 words and {code}")
    assert reply.text == BEGUN
    assert reply.seconds < SHORT["inter_token_s"] + SLACK_S
    if headers:
        assert len(rig.asked(reply.request_id)) == 1


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param("cut", marks=pytest.mark.fault(8)),
        pytest.param("cut-to-other", marks=pytest.mark.fault(8)),
        pytest.param("stall", marks=pytest.mark.fault(9)),
        pytest.param("error-event", marks=pytest.mark.fault(21)),
    ],
)
def test_a_held_answer_begins_anew(rig: Rig, evidence: Evidence, plan: str) -> None:
    """`x-weir-on-cut: hold`: nothing is sent until it is whole, so even a target that says otherwise can answer."""
    reply = rig.ask(plan, stream=True, headers=HOLD)
    evidence(f"{plan} (hold): whole in {reply.seconds:.1f} s")
    assert reply.error is None, reply
    assert reply.done
    assert reply.finish_reason == "stop"
    assert len(reply.text.split()) == 60
    assert (reply.text == TEXT) is (plan != "cut-to-other")


@pytest.mark.parametrize("plan", ["cut", "cut-to-prefill"])
@pytest.mark.parametrize(
    "fields",
    [{"response_format": SCHEMA}, {"n": 2}, {"logprobs": True}],
    ids=["json_schema", "n", "logprobs"],
)
@pytest.mark.fault(8)
def test_what_is_never_continued(rig: Rig, plan: str, fields: dict[str, Any]) -> None:
    """JSON by schema, several choices and logprobs cannot be pieced together: the client gets the error."""
    reply = rig.ask(plan, stream=True, **fields)
    reply.must_be_error("upstream_truncated", 200)
    assert len(rig.asked(reply.request_id)) == 1


@pytest.mark.fault(8)
def test_a_tool_call_is_never_continued(rig: Rig) -> None:
    """Half a tool call is not to be run, and another model would call otherwise."""
    reply = rig.ask("cut-in-tool", stream=True, tools=TOOLS)
    reply.must_be_error("upstream_truncated", 200)
    assert len(rig.asked(reply.request_id)) == 1


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param("cut", marks=pytest.mark.fault(8)),
        pytest.param("error-event", marks=pytest.mark.fault(21)),
    ],
)
def test_a_broken_unary_answer_is_asked_anew(rig: Rig, evidence: Evidence, plan: str) -> None:
    """A unary client has nothing yet, so the next target answers whole."""
    reply = rig.ask(plan, stream=False)
    reply.must_be_whole(TEXT)
    evidence(f"unary: answered anew in {reply.seconds:.2f} s")


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param("cut-alone", marks=pytest.mark.fault(8)),
        pytest.param("stall-alone", marks=pytest.mark.fault(9)),
        pytest.param("error-event-alone", marks=pytest.mark.fault(21)),
    ],
)
def test_a_broken_unary_answer_alone(rig: Rig, plan: str) -> None:
    """With nowhere to go it is an HTTP error, and nothing of the half answer."""
    reply = rig.ask(plan, stream=False)
    assert reply.status in {503, 504}, reply
    assert reply.error is not None
    assert WORD not in reply.body.decode()


@pytest.mark.fault(9)
def test_a_stalled_target_is_healthy_afterwards(rig: Rig, evidence: Evidence) -> None:
    """After one stall the same target answers the next request itself."""
    rig.ask("stall-once", stream=True).must_be_whole(TEXT)
    reply = rig.ask("stall-once", stream=True)
    reply.must_be_whole(TEXT)
    evidence("the next request is its own again")
    assert reply.target.endswith(".1")
    assert reply.attempts == 1


@pytest.mark.fault(9)
def test_a_comment_counts_as_life(rig: Rig, evidence: Evidence) -> None:
    """2.5 s of nothing but comments, each within the inter-token limit of 1 s: that is no stall."""
    reply = rig.ask("breathing", stream=True)
    reply.must_be_whole(TEXT)
    evidence(f"comments for {reply.seconds:.1f} s are life")
    assert reply.seconds > 2
    assert len(rig.asked(reply.request_id)) == 1


@pytest.mark.fault(14)
def test_a_rejected_prefill(rig: Rig, evidence: Evidence) -> None:
    """The fallback rejects the prefill with a 400: it is asked afresh, and nobody hears of the 400."""
    reply = rig.ask("cut-to-refusal", stream=True)
    reply.must_be_whole(TEXT)
    asked = rig.asked(reply.request_id)
    evidence(f"{len(asked)} attempts, the 400 unseen, 60 of 60 words")
    assert [seen["messages"] for seen in asked] == [1, 2, 1]
    assert b"does not take" not in reply.body
    rows = rig.rows(reply.request_id, 3)
    assert [row["outcome"] for row in rows] == ["cut", "failed", "ok"]


@pytest.mark.parametrize("plan", ["cut-to-refusal-only", "cut-to-refusal-of-other"])
@pytest.mark.fault(14)
def test_a_rejected_prefill_and_no_way_on(rig: Rig, plan: str) -> None:
    """Where nobody can go on the client reads of the break, not of a prefill it never sent."""
    reply = rig.ask(plan, stream=True)
    reply.must_be_error("upstream_truncated", 200)
    assert reply.text == BEGUN
    assert b"does not take" not in reply.body


@pytest.mark.fault(21)
def test_an_error_event_is_told(rig: Rig, evidence: Evidence) -> None:
    """The provider's words reach the log and the client; the secret that it quotes reaches neither."""
    reply = rig.ask("error-event-alone", stream=True)
    message = reply.must_be_error("upstream_truncated", 200)
    evidence(f"client reads {message[:60]!r}")
    assert "The server had an error" in message
    assert SECRET not in reply.body.decode()
    logs = rig.log_of("router-0") + rig.log_of("cloud_adapter")
    assert "The server had an error" in logs
    assert SECRET not in logs


@pytest.mark.parametrize("plan", ["cut", "cut-alone"])
@pytest.mark.fault(8)
def test_the_typed_contract_tells_a_break(rig: Rig, plan: str) -> None:
    """gRPC: the same answer whole, or UNAVAILABLE with reason UPSTREAM_TRUNCATED and no `finished`."""
    text, finished, broken = asyncio.run(_generate(rig, f"{plan}.stream"))
    assert text == (TEXT if plan == "cut" else BEGUN)
    assert finished is (plan == "cut")
    assert broken is (plan == "cut-alone")


async def _generate(rig: Rig, model: str) -> tuple[str, bool, bool]:
    channel = open_channel(rig.weir.edge)
    router = RouterClient(ChannelTransport(channel, mesh_codec()))
    request = GenerateRequest(model=model, messages=[ChatMessage(role=Role.USER, content="Say hello.")])
    texts, finished, broken = [], False, False
    try:
        async for event in router.generate(request, metadata=(("authorization", f"Bearer {rig.weir.key}"),)):
            texts += [event.delta.text] if event.delta is not None else []
            finished = finished or event.finished is not None
    except UpstreamTruncated:
        broken = True
    finally:
        await channel.close()
    return "".join(texts), finished, broken
