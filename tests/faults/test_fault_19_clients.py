"""Clients that leave, and clients that read slowly."""

from __future__ import annotations

import time

import psutil
import pytest

from tests.faults.marks import SLACK_S, Evidence
from tests.harness.doomed import Doomed
from tests.harness.fault_plans import TEXT
from tests.harness.fault_rig import Rig
from tests.harness.open_stream import OpenStream, opened
from tests.harness.reply import MESSAGES
from tests.harness.running_weir import wait_for

NOTICED_S = 1.0
PIECES = 5
MEBIBYTE = 1 << 20
UNREAD_S = 2.0
MOST_UNDERWAY = 24 * MEBIBYTE
"""Bytes that all buffers between provider and client may hold, those of four TCP connections among them."""
MOST_GROWTH = 24 * MEBIBYTE
IDLE_SHARE = 0.07
"""Of one core; a model that generates takes all of it that it can get, and the watch's one token next to nothing."""
LONG_PROMPT_WORDS = 1_800
"""Take the local model twenty seconds and more."""
BATCH_S = 10.0
"""A cancel waits for the batch of the prompt in work: under a second, several on a busy machine."""


@pytest.mark.fault(19)
def test_a_client_leaves_in_mid_stream(rig: Rig, evidence: Evidence) -> None:
    """The provider's connection is closed within a second; what came until then is settled, estimated."""
    with opened(rig.weir.edge, rig.weir.key, _fields("endless.stream")) as stream:
        for _ in range(PIECES):
            assert stream.read(4_096)
        left_s = stream.leave()
    late_s = _noticed_s(rig, stream, left_s)
    (row,) = rig.rows(stream.request_id, 1)
    evidence(f"mid-stream: provider let go after {late_s:.2f} s, {row['output_tokens']} tokens settled")
    assert late_s < NOTICED_S
    assert row["outcome"] == "cancelled"
    assert PIECES <= row["output_tokens"] < 6_000 / 4
    assert row["input_tokens"] > 0
    assert row["usage_estimated"]


@pytest.mark.parametrize("mode", ["stream", "unary"])
@pytest.mark.fault(19)
def test_a_client_leaves_before_the_first_token(rig: Rig, evidence: Evidence, mode: str) -> None:
    """The same, and nothing is charged."""
    with opened(rig.weir.edge, rig.weir.key, _fields(f"mute.{mode}")) as stream:
        wait_for("the provider's request", lambda: bool(rig.asked(stream.request_id)))
        left_s = stream.leave()
    late_s = _noticed_s(rig, stream, left_s)
    (row,) = rig.rows(stream.request_id, 1)
    evidence(f"before the first token ({mode}): let go after {late_s:.2f} s")
    assert late_s < NOTICED_S
    assert row["outcome"] == "cancelled"
    assert (row["input_tokens"], row["output_tokens"]) == (0, 0)


@pytest.mark.parametrize("tokens", [True, False], ids=["mid-stream", "before-the-first-token"])
@pytest.mark.separate_only
@pytest.mark.fault(19)
def test_a_client_leaves_the_local_model(rig: Rig, evidence: Evidence, *, tokens: bool) -> None:
    """Triton's model stops computing within a second; in the middle of its prompt, after the batch in work."""
    stub = psutil.Process(Doomed(rig.weir, rig.provider).stub())
    prompt = "Tell me a long story." if tokens else "word " * LONG_PROMPT_WORDS
    fields = {**_fields("local"), "max_tokens": 1_500, "messages": [{"role": "user", "content": prompt}]}
    with opened(rig.weir.edge, rig.weir.key, fields) as stream:
        if tokens:
            for _ in range(PIECES):
                assert stream.read(4_096)
        else:
            wait_for("the model at work", lambda: _share(stub) > 1.5 * IDLE_SHARE)
        left_s = stream.leave()
    limit_s = NOTICED_S if tokens else BATCH_S
    wait_for("an idle model", lambda: _share(stub) < IDLE_SHARE, limit_s)
    idle_s = time.monotonic() - left_s
    (row,) = rig.rows(stream.request_id, 1)
    evidence(f"Triton ({'mid-stream' if tokens else 'in its prompt'}): idle within {idle_s:.1f} s")
    assert row["outcome"] == "cancelled"
    assert (row["output_tokens"] > 0) is tokens
    assert row["output_tokens"] < 1_500


@pytest.mark.fault(20)
def test_a_client_reads_slowly(rig: Rig, evidence: Evidence) -> None:
    """256 MiB are to be had, and nobody reads: the provider is held back, memory stays, others are answered as ever."""
    parts = [
        psutil.Process(pid)
        for name, pid in rig.weir.pids().items()
        if name in {"router-0", "cloud_adapter", "edge"}
    ]
    before = {part.pid: part.memory_info().rss for part in parts}
    with opened(rig.weir.edge, rig.weir.key, _fields("flood.stream")) as stream:
        assert stream.read(4_096)
        sent = _settled_bytes(rig, stream)
        ends_s = time.monotonic() + UNREAD_S
        slowest_s = 0.0
        while time.monotonic() < ends_s:
            reply = rig.ask("good", stream=True)
            reply.must_be_whole(TEXT)
            slowest_s = max(slowest_s, reply.seconds)
        later = _bytes_sent(rig, stream)
        growth = max(part.memory_info().rss - before[part.pid] for part in parts)
        read = sum(len(stream.read(MEBIBYTE)) for _ in range(256))
        wait_for("the provider to go on", lambda: _bytes_sent(rig, stream) > later)
        left_s = stream.leave()
    late_s = _noticed_s(rig, stream, left_s)
    evidence(
        f"{later / MEBIBYTE:.1f} of 256 MiB sent, memory +{growth / MEBIBYTE:.0f} MiB, "
        f"others within {slowest_s:.2f} s; goes on when read ({read / MEBIBYTE:.0f} MiB)"
    )
    assert sent <= later < MOST_UNDERWAY
    assert growth < MOST_GROWTH
    assert slowest_s < SLACK_S
    assert late_s < NOTICED_S


def _fields(model: str) -> dict[str, object]:
    return {"model": model, "messages": MESSAGES, "stream": not model.endswith(".unary")}


def _noticed_s(rig: Rig, stream: OpenStream, left_s: float) -> float:
    """How long after the client left its provider knew. Seconds."""

    def look() -> float | None:
        (seen,) = rig.asked(stream.request_id)
        gone_ms = seen["client_gone_ms"]
        return None if gone_ms is None else rig.provider.monotonic_s(seen["begun_ms"] + gone_ms) - left_s

    return wait_for("the provider to be let go", look)


def _bytes_sent(rig: Rig, stream: OpenStream) -> int:
    (seen,) = rig.asked(stream.request_id)
    return int(seen["bytes_sent"])


def _settled_bytes(rig: Rig, stream: OpenStream) -> int:
    """What was sent once no more is sent for half a second."""
    sent, since_s = 0, time.monotonic()

    def look() -> bool:
        nonlocal sent, since_s
        if (now := _bytes_sent(rig, stream)) != sent:
            sent, since_s = now, time.monotonic()
        return time.monotonic() - since_s > 0.5

    wait_for("the provider to be held back", look)
    return sent


def _share(process: psutil.Process) -> float:
    """Of one core, over the next quarter of a second."""
    return float(process.cpu_percent(interval=0.25)) / 100
