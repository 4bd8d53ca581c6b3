"""Every knob of the router."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dialects.chat_template import TemplateName
from gen.weir.type.v1 import Locality, Target
from meshkit.settings import MeshSettings, Strict
from services.router.domain.target import Limits, ModelSpec, TargetSpec
from services.router.spool_settings import FeedSettings, SpoolSettings

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$")]


class LimitSettings(Strict):
    """How long a target may take. Seconds."""

    connect_s: Seconds = 2.0
    first_token_s: Seconds = 10.0
    """For streams; reasoning models need more."""
    inter_token_s: Seconds = 5.0
    total_s: Seconds = 600.0

    def limits(self) -> Limits:
        """As the domain's value."""
        return Limits(
            connect=timedelta(seconds=self.connect_s),
            first_token=timedelta(seconds=self.first_token_s),
            inter_token=timedelta(seconds=self.inter_token_s),
            total=timedelta(seconds=self.total_s),
        )


class TritonTargetSettings(Strict):
    """A model of our own behind Triton."""

    kind: Literal["triton"]
    model: str = "smollm2"
    """The Triton model's name."""
    profile: Literal["trtllm_bls"] = "trtllm_bls"
    """The backend's contract, see adapters/triton_profile.py."""
    chat_template: TemplateName = "smollm2"
    endpoint: str | None = None
    """`host:port` of Triton's gRPC; absent means the one that `weir up` starts (ports.triton_grpc)."""
    default_max_output_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] = 256
    """Cap of an answer whose request names none. Tokens."""
    limits: LimitSettings = LimitSettings()


class CloudTargetSettings(Strict):
    """A model of a provider."""

    kind: Literal["cloud"]
    provider: Name
    """A key of `providers`."""
    model: str
    """The provider's name for it."""
    default_max_output_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] = 4_096
    """Reserved for an answer whose request names no cap; not sent. Tokens."""
    limits: LimitSettings = LimitSettings()


TargetSettings = Annotated[TritonTargetSettings | CloudTargetSettings, Field(discriminator="kind")]


class ModelSettings(Strict):
    """A name that clients may ask for."""

    plan: Annotated[list[Name], Field(min_length=1)]
    """Targets in order of preference."""
    policy: Literal["fixed", "auto"] = "fixed"
    """`auto`: short classification prompts go to a local target first, the others in the plan's order."""


class RouterBlock(Strict):
    """The router's own knobs."""

    keyset_max_stale_s: Seconds = 900.0
    """Known keys are honoured so long without a sign of life from Auth."""
    keyset_silence_s: Seconds = 5.0
    """A key watch silent for so long is begun anew; Auth's heartbeat is one second."""
    keyset_load_s: Seconds = 10.0
    """How long the start waits for the first snapshot."""
    auth_ask_s: Seconds = 2.0
    """How long Auth may take to answer about an unknown key."""
    refused_for_s: Seconds = 5.0
    """How long a refusal by Auth is remembered."""
    refused_keys: Annotated[int, Field(ge=0)] = 10_000
    """How many refusals are remembered."""
    probe_s: Seconds = 1.0
    """How often targets are asked whether they are ready."""
    max_body_bytes: Annotated[int, Field(ge=1)] = 20 * 1024 * 1024
    """Larger bodies are refused, also over gRPC; the edge's own limit is the same."""
    feed_stop_s: Seconds = 5.0
    """How long the end waits for the ledger to take what is left; the spool keeps the rest."""
    spool: SpoolSettings = SpoolSettings()
    feed: FeedSettings = FeedSettings()


def _default_targets() -> dict[str, TargetSettings]:
    return {"local": TritonTargetSettings(kind="triton")}


class RouterSettings(MeshSettings):
    """What a router process reads of weir.yaml."""

    targets: dict[Name, TargetSettings] = Field(default_factory=_default_targets)
    """Places that can answer."""
    models: dict[Name, ModelSettings] = Field(default_factory=dict)
    """Names that clients may ask for. Those in `default_models` are added where the file does not name them."""
    default_model: str = "auto"
    """What an absent `model` means."""
    router: RouterBlock = RouterBlock()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, model in self.models.items():
            if len(set(model.plan)) < len(model.plan):
                raise ValueError(f"models.{name}.plan: names a target twice")
            for target in model.plan:
                if target not in self.targets:
                    known = ", ".join(self.targets)
                    raise ValueError(f"models.{name}.plan: no target {target!r} (targets: {known})")
        if self.default_model not in (models := self.all_models()):
            known = ", ".join(models) or "none, for there are no targets"
            raise ValueError(f"default_model: no model {self.default_model!r} (models: {known})")
        return self

    def all_models(self) -> dict[str, ModelSettings]:
        """The models of the file, and the default ones it does not name."""
        return {**default_models(self.targets), **self.models}

    def model_specs(self) -> dict[str, ModelSpec]:
        """Models as the domain's values."""
        return {
            name: ModelSpec(name, tuple(model.plan), model.policy == "auto")
            for name, model in self.all_models().items()
        }


def default_models(targets: dict[str, TargetSettings]) -> dict[str, ModelSettings]:
    """Each target under its own name, and `auto`: the cloud's targets first, the local ones for what they do well."""
    named = {name: ModelSettings(plan=[name]) for name in targets}
    cloud = [name for name, target in targets.items() if target.kind == "cloud"]
    local = [name for name in targets if name not in cloud]
    plan = [*cloud, *local]
    return {**named, "auto": ModelSettings(plan=plan, policy="auto")} if plan else named


def target_spec(name: str, settings: TargetSettings) -> TargetSpec:
    """A target as the domain's value."""
    local = settings.kind == "triton"
    return TargetSpec(
        target=Target(
            name=name,
            locality=Locality.LOCAL if local else Locality.CLOUD,
            provider="triton" if settings.kind == "triton" else settings.provider,
            model=settings.model,
        ),
        limits=settings.limits.limits(),
        capabilities=frozenset() if local else frozenset({"*"}),
        default_max_output_tokens=settings.default_max_output_tokens,
    )
