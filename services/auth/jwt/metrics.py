"""What Prometheus is told of issuers and their tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge


class TokenMetrics:
    """Counters and gauges by the issuer's name in the configuration; nothing of a token becomes a label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._keys = Gauge("weir_auth_issuer_keys", "Usable keys held.", ("issuer",), registry=registry)
        self._age = Gauge(
            "weir_auth_issuer_keys_age_seconds", "Since an issuer's keys were last fetched well.", ("issuer",),
            registry=registry,
        )  # fmt: skip
        self._fetches = Counter(
            "weir_auth_issuer_fetches",
            "Fetches of an issuer's keys.",
            ("issuer", "outcome"),
            registry=registry,
        )
        self._tokens = Counter(
            "weir_auth_tokens", "JWTs looked at; the issuer is empty where it is not configured.",
            ("issuer", "outcome"), registry=registry,
        )  # fmt: skip

    def watch(self, issuer: str, age_s: Callable[[], float], keys: Callable[[], int]) -> None:
        """Shows what is held of one issuer."""
        self._age.labels(issuer).set_function(age_s)
        self._keys.labels(issuer).set_function(keys)

    def fetched(self, issuer: str, outcome: Literal["good", "failed"]) -> None:
        """Counts one fetch."""
        self._fetches.labels(issuer, outcome).inc()

    def looked_at(self, issuer: str, outcome: str) -> None:
        """Counts one token. `outcome` is `accepted`, or the refusal's reason in lower case."""
        self._tokens.labels(issuer, outcome).inc()
