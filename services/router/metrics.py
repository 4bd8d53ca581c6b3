"""The router's own metrics: attempts, times and tokens by target. Children are bound when a target is first used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram

from gen.weir.ledger.v1 import Entry, Outcome

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)


class _Bound(NamedTuple):
    """The children of one target."""

    attempts: Mapping[Outcome, Counter]
    input_tokens: Counter
    output_tokens: Counter
    malformed: Counter
    first_token: Histogram
    latency: Histogram


class RouterMetrics:
    """Counts what the attempt loop does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "weir_router_attempts", "Attempts ended.", ("target", "outcome"), registry=registry
        )
        self._tokens = Counter("weir_router_tokens", "Tokens by kind.", ("target", "kind"), registry=registry)
        self._malformed = Counter(
            "weir_router_malformed_events", "Upstream events skipped.", ("target",), registry=registry
        )
        self._first_token = Histogram(
            "weir_router_first_token_seconds", "From begin to first token.", ("target",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._latency = Histogram(
            "weir_router_attempt_seconds", "From begin to end.", ("target",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._bound: dict[str, _Bound] = {}

    def ended(self, target: str, entry: Entry) -> None:
        """Counts a terminal entry."""
        bound = self._of(target)
        bound.attempts[Outcome(entry.outcome)].inc()
        if entry.usage is not None:
            bound.input_tokens.inc(entry.usage.input_tokens)
            bound.output_tokens.inc(entry.usage.output_tokens)
        if entry.first_token is not None:
            bound.first_token.observe(entry.first_token.total_seconds())
        if entry.latency is not None:
            bound.latency.observe(entry.latency.total_seconds())

    def malformed(self, target: str, count: int) -> None:
        """Counts upstream events that were skipped."""
        self._of(target).malformed.inc(count)

    def _of(self, target: str) -> _Bound:
        bound = self._bound.get(target)
        if bound is None:
            bound = self._bound[target] = _Bound(
                {
                    outcome: self._attempts.labels(target, outcome.name.lower())
                    for outcome in Outcome
                    if outcome
                },
                self._tokens.labels(target, "input"),
                self._tokens.labels(target, "output"),
                self._malformed.labels(target),
                self._first_token.labels(target),
                self._latency.labels(target),
            )
        return bound
