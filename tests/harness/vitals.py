"""What the processes of a mesh hold: descriptors, threads, memory, and answers under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from tests.harness.fault_rig import Rig

WATCHED = ("router", "cloud_adapter", "auth", "ledger", "edge")


@dataclass(frozen=True)
class Vitals:
    """Of one process."""

    descriptors: int
    threads: int
    rss_bytes: int


def vitals(rig: Rig) -> Mapping[str, Vitals]:
    """By part; of those parts that have a process here."""
    found = {}
    for name, pid in rig.weir.pids().items():
        if name.startswith(WATCHED):
            process = psutil.Process(pid)
            found[name] = Vitals(process.num_fds(), process.num_threads(), process.memory_info().rss)
    return found


def under_way(rig: Rig) -> float:
    """Calls that the router is answering, but for the watches of its neighbours."""
    return sum(
        rig.metric("weir_rpc_active", method=f"/weir.openai.v1.OpenAI/{name}")
        for name in ("ChatCompletions", "Embeddings")
    )
