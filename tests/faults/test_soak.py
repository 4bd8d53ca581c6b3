"""Mixed load with faults: exact accounts, and nothing left behind. `make soak` asks 2,000 questions, this a few."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping

import pytest

from tests.faults.marks import Evidence
from tests.harness.fault_rig import Rig
from tests.harness.running_weir import wait_for
from tests.harness.soak import Soak, disagreements, open_answers
from tests.harness.vitals import Vitals, under_way, vitals

SAMPLE = 150
AT_ONCE = 32
WARM_UP_SHARE = 0.5
"""So much again is asked before anything is measured: pools, caches and series are made on first use."""
MOST_GROWTH = 0.10
FEW = 3
"""Descriptors and threads more or less are a matter of the moment: a pool's connection, a probe."""


@pytest.mark.timeout(900)
def test_mixed_load_leaves_nothing_behind(rig: Rig, evidence: Evidence) -> None:
    """Every question ends as it must, in the same attempts for client, ledger and provider; then all is as before."""
    count = int(os.environ.get("WEIR_SOAK_REQUESTS") or SAMPLE)
    seed = int(os.environ.get("WEIR_SOAK_SEED") or time.time_ns() % 1_000_000)
    evidence(f"seed {seed}: WEIR_SOAK_REQUESTS={count} WEIR_SOAK_SEED={seed}")
    prefix = f"soak-{seed}-{time.time_ns():x}-"
    soak = Soak(rig, seed, prefix)
    soak.run(max(int(count * WARM_UP_SHARE), SAMPLE), AT_ONCE)
    _at_rest(rig)
    before = vitals(rig)
    seconds = soak.run(count, AT_ONCE)
    _settled(rig, soak, prefix)
    _at_rest(rig)
    wait_for("descriptors and threads to be given back", lambda: not _left(before, vitals(rig)), 20)
    after = vitals(rig)
    growth = {name: after[name].rss_bytes / before[name].rss_bytes - 1 for name in before}
    ends = Counter(fate.kind.end.value for fate in soak.fates)
    evidence(f"{count} in {seconds:.1f} s, {AT_ONCE} at once; with those of the warm-up {dict(ends)}")
    evidence("memory: " + ", ".join(f"{name} {share:+.1%}" for name, share in growth.items()))
    assert max(growth.values()) < MOST_GROWTH, growth


def _settled(rig: Rig, soak: Soak, prefix: str) -> None:
    def faults() -> list[str]:
        return list(disagreements(soak.fates, rig.weir.rows(prefix), rig.provider.log(), prefix))

    try:
        wait_for("accounts that agree", lambda: not faults(), 20)
    except AssertionError:
        raise AssertionError("\n".join(faults())) from None


def _at_rest(rig: Rig) -> None:
    """Returns when no answer is under way, at the router and at the provider."""
    wait_for("the router to be idle", lambda: under_way(rig) == 0)
    wait_for("the provider to be idle", lambda: not open_answers(rig.provider.log()))


def _left(before: Mapping[str, Vitals], after: Mapping[str, Vitals]) -> list[str]:
    return [
        name
        for name in before
        if after[name].descriptors > before[name].descriptors + FEW
        or after[name].threads > before[name].threads + FEW
    ]
