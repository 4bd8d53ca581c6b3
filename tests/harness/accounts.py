"""Compares the ledger with what clients saw and with what the provider was asked: nothing lost, nothing doubled."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gen.weir.type.v1 import Locality
from tests.harness.crowd import Told, Verdict
from tests.harness.running_weir import Provider, RunningWeir, wait_for

Row = Mapping[str, Any]


def settled(
    weir: RunningWeir, provider: Provider, told: Sequence[Told], prefix: str, limit_s: float = 30.0
) -> Sequence[Row]:
    """The rows of these questions, once they agree with all else. Raises AssertionError with each disagreement."""
    asked = Counter(seen["request_id"] for seen in provider.log() if seen["request_id"].startswith(prefix))

    def faults() -> list[str]:
        return list(disagreements(told, weir.rows(prefix), asked))

    try:
        wait_for("accounts that agree", lambda: not faults(), limit_s)
    except AssertionError:
        raise AssertionError("\n".join(faults())) from None
    return weir.rows(prefix)


def disagreements(told: Iterable[Told], rows: Iterable[Row], asked: Mapping[str, int]) -> Iterator[str]:
    """Whatever one side knows and another does not.

    Args:
        told: what clients saw.
        rows: of ledger.entry.
        asked: request id -> how often the provider was asked.
    """
    by_request: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_request[row["request_id"]].append(row)
    known = {one.request_id for one in told}
    for stranger in (set(by_request) | set(asked)) - known:
        yield f"{stranger}: nobody asked that"
    for one in told:
        own = sorted(by_request[one.request_id], key=lambda row: row["attempt"])
        for fault in _of_one(one, own, asked.get(one.request_id, 0)):
            yield f"{one.request_id} {one.verdict} ({one.detail}): {fault}; rows {_shown(own)}"


def _of_one(told: Told, rows: Sequence[Row], asked: int) -> Iterator[str]:
    if [row["attempt"] for row in rows] != list(range(1, len(rows) + 1)):
        yield "an attempt is missing or doubled"
    outcomes = [row["outcome"] for row in rows]
    if told.verdict is Verdict.WHOLE:
        if outcomes[-1:] != ["ok"] or "ok" in outcomes[:-1]:
            yield "its last attempt, and no other, must be ok"
        elif rows[-1]["target_name"] != told.target:
            yield f"it was answered by {told.target}"
    # A client whose connection broke cannot know whether the answer was whole when it was cut off from it.
    elif "ok" in outcomes and told.verdict is not Verdict.BROKEN:
        yield "it has an attempt that is ok"
    if told.verdict is Verdict.NO_CONNECTION and rows:
        yield "it reached nobody"
    by_cloud = [row for row in rows if row["target_locality"] == Locality.CLOUD]
    if asked > len(by_cloud):
        yield f"the provider was asked {asked} times"
    if sum(row["outcome"] == "ok" for row in by_cloud) > asked:
        yield f"the provider was asked only {asked} times"


def _shown(rows: Sequence[Row]) -> str:
    return str([(row["attempt"], row["target_name"], row["outcome"], row["error_reason"]) for row in rows])
