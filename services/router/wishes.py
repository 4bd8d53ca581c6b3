"""Reads what a caller wishes for the routing of one request, from headers or from the typed contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from dialects.parameters import MAX_FALLBACKS
from gen.weir.router.v1 import OnCut, RouteOptions
from meshkit.errors import InvalidRequest

ON_CUT = "x-weir-on-cut"
TARGETS = "x-weir-targets"
DEADLINE_MS = "x-weir-deadline-ms"
MAX_TARGETS = 64
MAX_DEADLINE_MS = 86_400_000
_ON_CUT = {"error": OnCut.ERROR, "continue": OnCut.CONTINUE, "hold": OnCut.HOLD}


@dataclass(frozen=True, slots=True)
class Wishes:
    """A caller's wishes for one request."""

    targets: tuple[str, ...] = ()
    """The only targets to ask, in this order; empty means those of the plan."""
    targets_param: str = TARGETS
    """Where they were named."""
    fallbacks: tuple[str, ...] = ()
    """Models whose targets follow, beside those that the body names."""
    on_cut: OnCut = OnCut.UNSPECIFIED
    patience: timedelta | None = None
    """How long the caller waits; None means without limit."""


def read_wishes(headers: Mapping[str, str | bytes], patience: timedelta | None) -> Wishes:
    """The wishes in a request's metadata; `patience` is what is left of its gRPC deadline.

    Raises InvalidRequest naming the header.
    """
    targets, on_cut, deadline = headers.get(TARGETS), headers.get(ON_CUT), headers.get(DEADLINE_MS)
    if targets is None and on_cut is None and deadline is None:
        return Wishes(patience=patience)
    return Wishes(
        targets=() if targets is None else _targets(str(targets)),
        on_cut=OnCut.UNSPECIFIED if on_cut is None else _on_cut(str(on_cut)),
        patience=patience if deadline is None else _shorter(patience, _deadline(str(deadline))),
    )


def with_options(wishes: Wishes, options: RouteOptions | None) -> Wishes:
    """The wishes with those of a typed request, which count more than the headers'. Raises InvalidRequest."""
    if options is None:
        return wishes
    if len(options.targets) > MAX_TARGETS:
        raise InvalidRequest(f"route.targets: at most {MAX_TARGETS}", param="route.targets")
    if len(options.fallbacks) > MAX_FALLBACKS:
        raise InvalidRequest(f"route.fallbacks: at most {MAX_FALLBACKS}", param="route.fallbacks")
    if options.on_cut not in OnCut.__members__.values():
        raise InvalidRequest("route.on_cut: unknown value", param="route.on_cut")
    return replace(
        wishes,
        targets=tuple(options.targets) or wishes.targets,
        targets_param="route.targets" if options.targets else wishes.targets_param,
        fallbacks=tuple(options.fallbacks),
        on_cut=OnCut(options.on_cut) or wishes.on_cut,
    )


def _targets(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if len(names) > MAX_TARGETS or not all(names):
        raise InvalidRequest(f"{TARGETS}: 1 to {MAX_TARGETS} names with commas between", param=TARGETS)
    return tuple(dict.fromkeys(names))


def _on_cut(text: str) -> OnCut:
    value = _ON_CUT.get(text.strip().lower())
    if value is None:
        raise InvalidRequest(f"{ON_CUT}: must be one of {', '.join(_ON_CUT)}", param=ON_CUT)
    return value


def _deadline(text: str) -> timedelta:
    digits = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_DEADLINE_MS))
    if not (digits and 0 < int(text) <= MAX_DEADLINE_MS):
        raise InvalidRequest(
            f"{DEADLINE_MS}: must be a whole number of 1 to {MAX_DEADLINE_MS} milliseconds", param=DEADLINE_MS
        )
    return timedelta(milliseconds=int(text))


def _shorter(first: timedelta | None, second: timedelta) -> timedelta:
    return second if first is None else min(first, second)
