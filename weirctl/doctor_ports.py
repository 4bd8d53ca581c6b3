"""Whether each port is free, or held by our own mesh."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from weirctl import processes, taken_ports
from weirctl.doctor_finding import Finding, fault, ok, warning
from weirctl.state_file import MeshState
from weirctl.taken_ports import WantedPort

_WHAT = "ports"


@dataclass(frozen=True)
class HeldPort:
    """A port of the running mesh, and who listens on it."""

    want: WantedPort
    pid: int | None
    """None where nobody does, or nobody that this user may see."""
    owner: str
    """In words; empty where nobody listens."""


def down(faults: Sequence[str], wanted: int) -> list[Finding]:
    """While the mesh is down: `faults` of taken_ports, each a line that says what to do."""
    if faults:
        return [fault(_WHAT, line, "then `weir up`") for line in faults]
    return [ok(_WHAT, f"all {wanted} are free")]


def up(held: Iterable[HeldPort], own: frozenset[int]) -> list[Finding]:
    """While it runs.

    Args:
        held: every port that it should hold.
        own: the processes of the mesh.
    """
    known = list(held)
    return list(_of_others(known, own)) or [ok(_WHAT, f"all {len(known)} are held by this Weir")]


def _of_others(held: Sequence[HeldPort], own: frozenset[int]) -> Iterator[Finding]:
    for one in held:
        place = f"port {one.want.port} for {one.want.purpose}"
        if not one.owner:
            yield warning(_WHAT, f"nobody listens on {place}", "`weir status` says what became of it")
        elif one.pid is None:
            yield warning(
                _WHAT, f"{place} is held by {one.owner}", "run `weir doctor` as the user who started Weir"
            )
        elif one.pid not in own:
            yield fault(
                _WHAT, f"{place} is held by {one.owner}", f"stop it, or set {one.want.key} in weir.yaml"
            )


def held_now(wanted: Iterable[WantedPort]) -> list[HeldPort]:
    """Who listens where."""
    return [
        HeldPort(
            want,
            taken_ports.holder(want.port),
            taken_ports.owner(want.port) if taken_ports.is_listening(want.port) else "",
        )
        for want in wanted
    ]


def own_processes(state: MeshState) -> frozenset[int]:
    """The supervisor and everything below it."""
    return frozenset(processes.family(state.pid))
