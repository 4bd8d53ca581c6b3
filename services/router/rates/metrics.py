"""What is counted of limits. Never by key: their number has no bound."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from gen.weir.auth.v1 import Meter, RateSubjectKind
from services.router.rates.subjects import Limit

CONTEXT: Final = "context"
"""As a meter: refusals of requests that are too long."""


class RateMetrics:
    """Refusals, and how the exchange with Auth goes. All children are bound at the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        limited = Counter(
            "weir_router_rate_limited", "Requests refused, by whose limit and which.", ("kind", "meter"),
            registry=registry,
        )  # fmt: skip
        self._limited = {
            (kind, meter): limited.labels(kind.name.lower(), meter.name.lower())
            for kind in RateSubjectKind
            for meter in Meter
            if kind and meter
        }
        self._contexts = {
            kind: limited.labels(kind.name.lower(), CONTEXT) for kind in RateSubjectKind if kind
        }
        self._exchanges = Counter(
            "weir_router_rate_exchanges", "Calls of Auth about limits.", registry=registry
        )
        self._failures = Counter(
            "weir_router_rate_exchange_failures", "Calls of Auth about limits that failed.", registry=registry
        )
        self._away = Gauge(
            "weir_router_rate_outage",
            "1 while Auth does not answer about limits, so that this worker counts alone.",
            registry=registry,
        )

    def limited(self, limit: Limit) -> None:
        """Counts a refused request."""
        self._limited[limit.kind, limit.meter].inc()

    def too_long(self, kind: RateSubjectKind) -> None:
        """Counts a request over a context limit."""
        self._contexts[kind].inc()

    def exchanged(self, *, failed: bool) -> None:
        """Counts a call."""
        self._exchanges.inc()
        if failed:
            self._failures.inc()

    def away(self, *, away: bool) -> None:
        """Auth went away, or came back."""
        self._away.set(away)
