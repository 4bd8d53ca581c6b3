"""Metering around Generate: what became of each answer, by provider, in metrics and in the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from gen.weir.cloud.v1 import GenerateRequest, GenerateResponse
from gen.weir.error.v1 import Reason
from meshkit.errors import WeirError
from meshkit.telemetry import Logger

_QUIET = frozenset({Reason.INVALID_REQUEST, Reason.CONTEXT_TOO_LONG, Reason.CONTENT_FILTERED})
"""Failures that are the request's own: nothing for an operator, and the provider's text may quote the prompt."""
_WHOLE = "whole"
_UNKNOWN_PROVIDER = "unknown"
"""The label for names that are not configured, so that callers cannot make up series."""


class MeteredGenerate:
    """Counts and logs; changes nothing."""

    def __init__(
        self,
        generate: Callable[[GenerateRequest], Any],
        providers: frozenset[str],
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        self._generate = generate
        self._providers = providers
        self._log = log
        self._answers = Counter(
            "weir_cloud_answers",
            "Answers of providers, by how they ended.",
            ("provider", "outcome"),
            registry=registry,
        )
        self._malformed = Counter(
            "weir_cloud_malformed_events",
            "Events that were no JSON object and were skipped.",
            ("provider",),
            registry=registry,
        )
        self._bound: dict[tuple[str, str], Any] = {}

    async def __call__(self, request: GenerateRequest) -> AsyncIterator[GenerateResponse]:
        """The answer of the wrapped use case, and its errors."""
        name = request.provider if request.provider in self._providers else _UNKNOWN_PROVIDER
        outcome = "cancelled"
        try:
            async with aclosing(self._generate(request)) as responses:
                async for response in responses:
                    if response.finished:
                        outcome = _WHOLE  # even if the caller reads no further
                    if response.malformed_events:
                        self._malformed.labels(name).inc(response.malformed_events)
                    yield response
        except WeirError as error:
            outcome = Reason(error.reason).name.lower()
            if error.reason not in _QUIET:
                self._log.warning(
                    "provider failed", provider=name, request_id=request.request_id, outcome=outcome,
                    message=error.message, **error.details,
                )  # fmt: skip
            raise
        finally:
            self._count(name, outcome)

    def _count(self, name: str, outcome: str) -> None:
        child = self._bound.get((name, outcome))
        if child is None:
            child = self._bound[name, outcome] = self._answers.labels(name, outcome)
        child.inc()
