"""The router's own metrics: attempts, times and tokens by target. Children are bound when a target is first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

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
        self._failures = Counter(
            "weir_router_failures", "Attempts failed, by reason.", ("target", "reason"), registry=registry
        )
        self._continued = Counter(
            "weir_router_broken_answers", "Answers that broke off and were given to another target, by the manner in"
            " which the one that broke had been asked.", ("target", "manner"), registry=registry,
        )  # fmt: skip
        self._hedged = Counter(
            "weir_router_hedges",
            "Attempts begun because another target was late.",
            ("target",),
            registry=registry,
        )
        self._up = Gauge(
            "weir_router_target_up",
            "1 where a target answered its last probes.",
            ("target",),
            registry=registry,
        )
        self._open = Gauge(
            "weir_router_breaker_open", "1 where a target is left alone but for probes.", ("target",),
            registry=registry,
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

    def follow(self, target: str, is_up: Callable[[], bool], is_open: Callable[[], bool]) -> None:
        """Shows a target's state at each scrape: whether it answered its probes, whether its breaker is open."""
        self._up.labels(target).set_function(lambda: float(is_up()))
        self._open.labels(target).set_function(lambda: float(is_open()))

    def forget(self, target: str) -> None:
        """Shows no state of a target that is gone; what was counted stays."""
        for gauge in (self._up, self._open):
            with suppress(KeyError):
                gauge.remove(target)

    def failed(self, target: str, reason: str) -> None:
        """Counts an attempt that failed; `reason` is one of the closed set."""
        self._failures.labels(target, reason).inc()

    def continued(self, target: str, manner: str) -> None:
        """Counts an answer that broke off and goes on elsewhere."""
        self._continued.labels(target, manner).inc()

    def hedged(self, target: str) -> None:
        """Counts an attempt begun because another target was late."""
        self._hedged.labels(target).inc()

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
