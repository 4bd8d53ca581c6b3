"""What is configured: targets, and the models that clients may name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from gen.weir.type.v1 import Locality, Target


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a target may take before the next one is asked."""

    connect: timedelta
    first_token: timedelta
    """For streams; a unary cloud answer has only its total limit."""
    inter_token: timedelta
    total: timedelta


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """One place that can answer, as configured."""

    target: Target
    limits: Limits
    capabilities: frozenset[str]
    """What it can do beyond text and sampling; `*` means whatever its provider can."""
    default_max_output_tokens: int
    """Reserved, and for local targets sent, where the request names no cap. Tokens."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self.target.name

    @property
    def provider_label(self) -> str:
        """What the answer's top-level `provider` says: `local` or `cloud`."""
        return "local" if self.target.locality == Locality.LOCAL else "cloud"

    def missing(self, needs: Mapping[str, str]) -> str | None:
        """The parameter of `needs` (capability -> parameter) that this target cannot honour, if any."""
        if "*" in self.capabilities:
            return None
        return next((name for need, name in needs.items() if need not in self.capabilities), None)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A name that clients may ask for, and its targets in order of preference."""

    name: str
    targets: tuple[str, ...]
    auto: bool
    """True where the prompt decides which side is asked first."""
