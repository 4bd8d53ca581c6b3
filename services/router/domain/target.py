"""What is configured: targets, and the models that clients may name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from gen.weir.router.v1 import OnCut, Task
from gen.weir.type.v1 import Locality, Target

ANYTHING = "*"
"""The capability of a target that is sent the client's own JSON: what it cannot do, its provider says."""


class Cap(NamedTuple):
    """The most that an answer may have."""

    tokens: int
    param: str
    """What the caller calls it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a target may take before the next one is asked."""

    connect: timedelta
    first_token: timedelta
    """For streams; a unary cloud answer has only its total limit."""
    inter_token: timedelta
    total: timedelta


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often one target is asked for one request, and how long that may be waited for."""

    attempts: int = 3
    """Of a target that says that it is asked too often."""
    error_attempts: int = 2
    """Of a target that fails."""
    budget: timedelta = timedelta(seconds=3)
    """Longest wait, over all retries of one request at this target."""
    base: timedelta = timedelta(milliseconds=250)
    """First wait where the target names none; it doubles each time."""
    longest: timedelta = timedelta(milliseconds=1_500)
    """Longest such wait."""


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a target is left alone, and how it comes back."""

    window: timedelta = timedelta(seconds=10)
    """How far back failures count."""
    failures: int = 5
    """So many open the breaker, if they are at least half of what was asked in the window."""
    probe: timedelta = timedelta(seconds=5)
    """An open breaker lets one request through so often."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a target can do beyond text and sampling."""

    can: frozenset[str] = frozenset()
    """Names of dialects.chat_request's needs; `*` means whatever its provider can."""
    lacks: frozenset[str] = frozenset()
    """What it cannot do in spite of a `*`."""
    context_window: int | None = None
    """Tokens of prompt and answer together; None where that is not configured."""
    max_output_tokens: int | None = None
    """Most tokens of one answer; None where that is not configured."""
    prefill: str = ""
    """How it is told to go on with an answer (dialects.request.PrefillStyle); empty where it cannot."""

    def has(self, need: str) -> bool:
        """Whether it can do one thing."""
        return need not in self.lacks and (need in self.can or ANYTHING in self.can)


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """One place that can answer, as configured."""

    target: Target
    limits: Limits
    capabilities: Capabilities
    default_max_output_tokens: int
    """Reserved, and for local targets sent, where the request names no cap. Tokens."""
    task: Task = Task.CHAT
    retry: RetryRule = RetryRule()
    breaker: BreakerRule = BreakerRule()
    priority: int = 0
    """Targets of a lower number are asked first."""
    weight: float | None = None
    """Share of the requests among targets of a plan with equal priority and a weight; None keeps the plan's order."""
    on_cut: OnCut = OnCut.CONTINUE
    """What happens when its answer breaks off, where the request does not say."""
    hedge: bool = False
    """True if the next target is asked too when this one's first token is late."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self.target.name

    @property
    def is_local(self) -> bool:
        """True for a model of our own."""
        return self.target.locality == Locality.LOCAL

    def missing(self, needs: Mapping[str, str], cap: Cap | None = None) -> str | None:
        """The parameter that this target cannot honour, if any.

        Args:
            needs: capability -> parameter.
            cap: of the answer, where the request has one.
        """
        most = self.capabilities.max_output_tokens
        if most is not None and cap is not None and cap.tokens > most:
            return cap.param
        return next((name for need, name in needs.items() if not self.capabilities.has(need)), None)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A name that clients may ask for, and its targets in order of preference."""

    name: str
    targets: tuple[str, ...]
    auto: bool
    """True where the prompt decides which side is asked first."""
    task: Task = Task.CHAT
