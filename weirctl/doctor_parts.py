"""Whether each part of the running mesh is well."""

from __future__ import annotations

from collections.abc import Sequence

from weirctl.doctor_finding import Finding, fault, ok, warning
from weirctl.part import State
from weirctl.state_file import PartState

_WHAT = "parts"
_MANY_RESTARTS = 3


def parts(seen: Sequence[PartState]) -> list[Finding]:
    """One line for each that is not healthy, or was restarted again and again; one line if all are well."""
    found = [finding for part in seen if (finding := _part(part)) is not None]
    return found or [ok(_WHAT, f"all {len(seen)} are healthy")]


def _part(part: PartState) -> Finding | None:
    if part.state != State.HEALTHY:
        return fault(_WHAT, f"{part.name} is {part.state}", f"see log/{part.name}.log for why")
    if part.restarts >= _MANY_RESTARTS:
        return warning(
            _WHAT, f"{part.name} was restarted {part.restarts} times", f"see log/{part.name}.log for why"
        )
    return None
