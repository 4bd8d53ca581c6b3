"""Metering around Generate and Embed: what became of each answer, by provider, in metrics and in the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from gen.weir.cloud.v1 import EmbedRequest, EmbedResponse, GenerateRequest, GenerateResponse
from gen.weir.error.v1 import Reason
from meshkit.errors import WeirError
from meshkit.telemetry import Logger

_QUIET = frozenset({Reason.INVALID_REQUEST, Reason.CONTEXT_TOO_LONG, Reason.CONTENT_FILTERED})
"""Failures that are the request's own: nothing for an operator, and the provider's text may quote the prompt."""
_WHOLE = "whole"
_CANCELLED = "cancelled"
_UNKNOWN_PROVIDER = "unknown"
"""The label for names that are not configured, so that callers cannot make up series."""


class Answers:
    """Counts and logs what became of answers.

    Args:
        providers: the names that are configured.
        registry: takes the metrics.
        log: takes failures that an operator should know of.
    """

    def __init__(self, providers: Container[str], registry: CollectorRegistry, log: Logger) -> None:
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

    @contextmanager
    def track(self, provider: str, request_id: str) -> Iterator[Tracked]:
        """Counts one answer when it ends, whole or not."""
        name = provider if provider in self._providers else _UNKNOWN_PROVIDER
        tracked = Tracked()
        try:
            yield tracked
        except WeirError as error:
            tracked.outcome = Reason(error.reason).name.lower()
            if error.reason not in _QUIET:
                self._log.warning(
                    "provider failed", provider=name, request_id=request_id, outcome=tracked.outcome,
                    message=error.message, **error.details,
                )  # fmt: skip
            raise
        finally:
            self._count(name, tracked.outcome)
            if tracked.malformed_events:
                self._malformed.labels(name).inc(tracked.malformed_events)

    def _count(self, name: str, outcome: str) -> None:
        child = self._bound.get((name, outcome))
        if child is None:
            child = self._bound[name, outcome] = self._answers.labels(name, outcome)
        child.inc()


@dataclass(slots=True)
class Tracked:
    """One answer on its way."""

    outcome: str = _CANCELLED
    malformed_events: int = 0


class MeteredGenerate:
    """Generate, counted; changes nothing."""

    def __init__(self, generate: Callable[[GenerateRequest], Any], answers: Answers) -> None:
        self._generate = generate
        self._answers = answers

    async def __call__(self, request: GenerateRequest) -> AsyncIterator[GenerateResponse]:
        """The answer of the wrapped use case, and its errors."""
        with self._answers.track(request.provider, request.request_id) as tracked:
            async with aclosing(self._generate(request)) as responses:
                async for response in responses:
                    if response.finished:
                        tracked.outcome = _WHOLE  # even if the caller reads no further
                    tracked.malformed_events += response.malformed_events
                    yield response


class MeteredEmbed:
    """Embed, counted; changes nothing."""

    def __init__(self, embed: Callable[[EmbedRequest], Awaitable[EmbedResponse]], answers: Answers) -> None:
        self._embed = embed
        self._answers = answers

    async def __call__(self, request: EmbedRequest) -> EmbedResponse:
        """The answer of the wrapped use case, and its errors."""
        with self._answers.track(request.provider, request.request_id) as tracked:
            response = await self._embed(request)
            tracked.outcome = _WHOLE
        return response
