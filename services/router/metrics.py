"""The router's own metrics: attempts, times and tokens by target. Children are bound when first used."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from gen.weir.ledger.v1 import Entry, Outcome

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)


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
        self._bound: dict[tuple[str, ...], Any] = {}

    def ended(self, target: str, entry: Entry) -> None:
        """Counts a terminal entry."""
        self._child(self._attempts, target, Outcome(entry.outcome).name.lower()).inc()
        if entry.usage is not None:
            self._child(self._tokens, target, "input").inc(entry.usage.input_tokens)
            self._child(self._tokens, target, "output").inc(entry.usage.output_tokens)
        if entry.first_token is not None:
            self._child(self._first_token, target).observe(entry.first_token.total_seconds())
        if entry.latency is not None:
            self._child(self._latency, target).observe(entry.latency.total_seconds())

    def malformed(self, target: str, count: int) -> None:
        """Counts upstream events that were skipped."""
        if count:
            self._child(self._malformed, target).inc(count)

    def _child(self, metric: Counter | Histogram, *labels: str) -> Any:
        key = (metric._name, *labels)  # noqa: SLF001 - the library keeps no public name
        child = self._bound.get(key)
        if child is None:
            child = self._bound[key] = metric.labels(*labels)
        return child
