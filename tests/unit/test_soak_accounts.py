"""The soak's accounts find each way in which clients, ledger and provider can disagree."""

from __future__ import annotations

from typing import Any

import pytest

from gen.weir.type.v1 import Locality
from tests.harness.soak import End, Fate, Kind, disagreements, open_answers

RETRIED = Kind("failed-once.unary", ("failed", "ok"))
LEFT_EARLY = Kind("mute.unary", ("cancelled",), (), End.LEFT_EARLY)


def row(attempt: int, outcome: str, request_id: str = "s-1") -> dict[str, Any]:
    """Of the ledger."""
    return {
        "request_id": request_id,
        "attempt": attempt,
        "outcome": outcome,
        "target_locality": int(Locality.CLOUD),
    }


def asked(count: int, request_id: str = "s-1") -> list[dict[str, Any]]:
    """The provider's log."""
    return [{"request_id": request_id}] * count


GOOD_ROWS = [row(1, "failed"), row(2, "ok")]


def found(kind: Kind, rows: list[dict[str, Any]], log: list[dict[str, Any]], problem: str = "") -> list[str]:
    """What is said of one question."""
    return list(disagreements([Fate(kind, "s-1", problem)], rows, log, "s-"))


def test_agreement() -> None:
    """The same attempts everywhere; others' requests do not count."""
    assert found(RETRIED, GOOD_ROWS, [*asked(2), *asked(3, "fault-7")]) == []
    assert found(LEFT_EARLY, [], []) == []
    assert found(LEFT_EARLY, [row(1, "cancelled")], []) == []


@pytest.mark.parametrize(
    ("kind", "rows", "log"),
    [
        (RETRIED, [row(1, "failed")], asked(1)),
        (RETRIED, [row(1, "failed"), row(1, "ok")], asked(2)),
        (RETRIED, GOOD_ROWS, asked(1)),
        (RETRIED, GOOD_ROWS, asked(3)),
        (RETRIED, [*GOOD_ROWS, row(1, "ok", "s-2")], asked(2)),
        (RETRIED, GOOD_ROWS, [*asked(2), *asked(1, "s-2")]),
        (LEFT_EARLY, [row(1, "ok")], asked(1)),
        (LEFT_EARLY, [], asked(1)),
    ],
    ids=[
        "lost",
        "doubled",
        "never asked",
        "asked too often",
        "a stranger's row",
        "a stranger",
        "ended",
        "unbooked",
    ],
)
def test_disagreement(kind: Kind, rows: list[dict[str, Any]], log: list[dict[str, Any]]) -> None:
    """Each is named."""
    assert found(kind, rows, log)


def test_what_a_client_saw() -> None:
    """Its own complaint is one too."""
    (said,) = found(RETRIED, GOOD_ROWS, asked(2), "half an answer")
    assert "half an answer" in said


def test_answers_left_open() -> None:
    """Neither answered nor given up."""
    log = [
        {"request_id": "1", "answered": True, "gone": False},
        {"request_id": "2", "answered": False, "gone": True},
        {"request_id": "3", "answered": False, "gone": False},
    ]
    assert open_answers(log) == ["3"]
