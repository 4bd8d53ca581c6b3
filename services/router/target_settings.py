"""The knobs of one target: what it is, what it can do, and how much patience it gets."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dialects.chat_template import TemplateName
from dialects.request import PrefillStyle
from gen.weir.router.v1 import OnCut, Task
from gen.weir.type.v1 import Locality, Target
from meshkit.settings import Strict
from services.router.domain.target import (
    ANYTHING,
    BreakerRule,
    Capabilities,
    Limits,
    RetryRule,
    TargetSpec,
)

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$")]


class LimitSettings(Strict):
    """How long a target may take. Seconds."""

    connect_s: Seconds = 2.0
    """For a provider: DNS, TCP and TLS together."""
    first_token_s: Seconds = 10.0
    """For streams; reasoning models need more."""
    inter_token_s: Seconds = 5.0
    """Of silence in mid-answer; a comment of the provider's counts as life."""
    total_s: Seconds = 600.0
    """For one attempt, whole; the only limit of a provider's answer that does not stream."""

    def limits(self) -> Limits:
        """As the domain's value."""
        return Limits(
            connect=timedelta(seconds=self.connect_s),
            first_token=timedelta(seconds=self.first_token_s),
            inter_token=timedelta(seconds=self.inter_token_s),
            total=timedelta(seconds=self.total_s),
        )


class RetrySettings(Strict):
    """How often one request asks this target."""

    attempts: Annotated[int, Field(ge=1, le=6)] = 3
    """While it answers 429. A `retry-after` within the budget is waited for once."""
    error_attempts: Annotated[int, Field(ge=1, le=6)] = 2
    """While it answers 5xx or breaks the connection before it answers."""
    budget_s: Annotated[float, Field(ge=0, le=600)] = 3.0
    """Seconds that the retries of one request may wait in all."""
    base_s: Annotated[float, Field(gt=0, le=60)] = 0.25
    """Seconds before the first retry; doubled each time, less up to half at random."""
    longest_s: Annotated[float, Field(gt=0, le=60)] = 1.5
    """Most seconds before one retry."""

    def rule(self) -> RetryRule:
        """As the domain's value."""
        return RetryRule(
            self.attempts,
            self.error_attempts,
            timedelta(seconds=self.budget_s),
            timedelta(seconds=self.base_s),
            timedelta(seconds=self.longest_s),
        )


class BreakerSettings(Strict):
    """When this target is left alone for a while. Each router process counts for itself."""

    window_s: Seconds = 10.0
    """Seconds back that failures count."""
    failures: Annotated[int, Field(ge=1, le=1_000)] = 5
    """So many failures open the breaker, if they are at least half of what was asked in the window."""
    probe_s: Seconds = 5.0
    """Seconds after which an open breaker lets one request through."""

    def rule(self) -> BreakerRule:
        """As the domain's value."""
        return BreakerRule(timedelta(seconds=self.window_s), self.failures, timedelta(seconds=self.probe_s))


class CapabilitySettings(Strict):
    """What a target can do beyond text and sampling. Absent: a provider's can, a local one cannot."""

    tools: bool | None = None
    """It calls functions; a local one by the convention of its chat template."""
    vision: bool | None = None
    """Pictures as parts of messages."""
    audio: bool | None = None
    """Sound as parts of messages."""
    file: bool | None = None
    """Files as parts of messages."""
    json_schema: bool | None = None
    """Answers of a given form (`response_format`); a local target needs guided decoding for it."""
    responses: bool = False
    """It has POST /responses itself; others are asked for a chat completion in its place."""
    prefill: PrefillStyle | Literal["none"] = "none"
    """How it goes on with an answer that another target began. Local targets always can."""
    context_window: Tokens | None = None
    """Tokens of prompt and answer together."""
    max_output_tokens: Tokens | None = None
    """Tokens of one answer; a request for more does not go to this target."""

    def capabilities(self, *, local: bool) -> Capabilities:
        """As the domain's value."""
        given = {name: getattr(self, name) for name in ("tools", "vision", "audio", "file", "json_schema")}
        can = {name for name, value in given.items() if value}
        lacks = {name for name, value in given.items() if value is False}
        if self.tools is False:
            lacks.add("functions")  # the older name of the same thing
        if self.responses and not local:
            can.add("responses")
        else:
            lacks.add("responses")
        if not local:
            can.add(ANYTHING)
        prefill = "" if self.prefill == "none" else self.prefill
        return Capabilities(
            frozenset(can),
            frozenset(lacks),
            self.context_window,
            self.max_output_tokens,
            "plain" if local else prefill,
        )


class _TargetSettings(Strict):
    """What every target has."""

    task: Literal["chat", "embed"] = "chat"
    """What its model does."""
    limits: LimitSettings = LimitSettings()
    retry: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    capabilities: CapabilitySettings = CapabilitySettings()
    priority: Annotated[int, Field(ge=-1_000, le=1_000)] = 0
    """Of a plan's targets those with a lower number are asked first."""
    weight: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Share of requests among the plan's targets of this priority that have a weight. Without one the plan's order
    counts."""
    on_cut: Literal["error", "continue", "hold"] = "continue"
    """When its answer breaks off after the first token: tell the client, have the next target go on, or hold every
    answer back until it is whole. A request may say otherwise (x-weir-on-cut)."""
    hedge: bool = False
    """Ask the next target too when the first token is later than this one's own 95th percentile. Costs more: both
    are paid."""

    def on_cut_value(self) -> OnCut:
        """As the contract's value."""
        return OnCut[self.on_cut.upper()]

    def task_value(self) -> Task:
        """As the contract's value."""
        return Task[self.task.upper()]


class TritonTargetSettings(_TargetSettings):
    """A model of our own behind Triton."""

    kind: Literal["triton"]
    model: str = "smollm2"
    """The Triton model's name."""
    profile: Literal["trtllm_bls"] = "trtllm_bls"
    """The backend's contract, see adapters/triton_profile.py; without meaning for `task: embed`."""
    chat_template: TemplateName = "smollm2"
    """Without meaning for `task: embed`."""
    endpoint: str | None = None
    """`host:port` of Triton's gRPC; absent means the one that `weir up` starts (ports.triton_grpc)."""
    default_max_output_tokens: Tokens = 256
    """Cap of an answer whose request names none. Tokens."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in ("vision", "audio", "file", "responses"):
            if getattr(self.capabilities, name):
                raise ValueError(f"capabilities.{name}: no local backend has it yet")
        return self


class CloudTargetSettings(_TargetSettings):
    """A model of a provider."""

    kind: Literal["cloud"]
    provider: Name
    """A key of `providers`."""
    model: str
    """The provider's name for it."""
    default_max_output_tokens: Tokens = 4_096
    """Reserved for an answer whose request names no cap; not sent. Tokens."""


TargetSettings = Annotated[TritonTargetSettings | CloudTargetSettings, Field(discriminator="kind")]


def target_spec(name: str, settings: TargetSettings) -> TargetSpec:
    """A target as the domain's value."""
    local = isinstance(settings, TritonTargetSettings)
    return TargetSpec(
        target=Target(
            name=name,
            locality=Locality.LOCAL if local else Locality.CLOUD,
            provider="triton" if isinstance(settings, TritonTargetSettings) else settings.provider,
            model=settings.model,
        ),
        limits=settings.limits.limits(),
        capabilities=settings.capabilities.capabilities(local=local),
        default_max_output_tokens=settings.default_max_output_tokens,
        task=settings.task_value(),
        retry=settings.retry.rule(),
        breaker=settings.breaker.rule(),
        priority=settings.priority,
        weight=settings.weight,
        on_cut=settings.on_cut_value(),
        hedge=settings.hedge,
    )
