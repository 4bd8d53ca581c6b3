"""Every knob of the router."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from gen.weir.router.v1 import Task
from meshkit.limit_settings import AuthLimits
from meshkit.settings import MeshSettings, Strict
from pricing.settings import LedgerPrices
from services.router.domain.target import ModelSpec
from services.router.identity_settings import IdentitySettings
from services.router.rate_settings import RateSettings
from services.router.spool_settings import FeedSettings, SpoolSettings
from services.router.target_settings import (
    CloudTargetSettings,
    Name,
    Seconds,
    TargetSettings,
    TritonTargetSettings,
)

LIVE: Final = frozenset({
    "targets", "models", "default_model", "router.max_attempts", "ledger.prices_file", "auth.limits",
})  # fmt: skip
"""What a running router takes over when weir.yaml changes; everything else needs a restart."""


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
    identity: IdentitySettings = IdentitySettings()
    remembered_callers: Annotated[int, Field(ge=1)] = 10_000
    """How many keys' permissions are kept ready for use."""
    probe_s: Seconds = 1.0
    """How often targets are asked whether they are ready."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 6
    """Attempts of one request, over all its targets."""
    max_body_bytes: Annotated[int, Field(ge=1)] = 20 * 1024 * 1024
    """Larger bodies are refused, also over gRPC; the edge's own limit is the same."""
    feed_stop_s: Seconds = 5.0
    """How long the end waits for the ledger to take what is left; the spool keeps the rest."""
    rates: RateSettings = RateSettings()
    spool: SpoolSettings = SpoolSettings()
    feed: FeedSettings = FeedSettings()


def default_target_blocks() -> dict[str, dict[str, object]]:
    """The targets of a configuration without any, as weir.yaml would say them: the models of `weir up`'s own Triton."""
    local: dict[str, object] = {
        "kind": "triton",
        "capabilities": {"json_schema": True, "context_window": 2_048},
    }
    embed: dict[str, object] = {
        "kind": "triton",
        "task": "embed",
        "model": "minilm",
        "capabilities": {"context_window": 256},
    }
    return {"local": local, "local-embed": embed}


def _default_targets() -> dict[str, TargetSettings]:
    return {
        name: TritonTargetSettings.model_validate(block) for name, block in default_target_blocks().items()
    }


class RouterSettings(MeshSettings):
    """What a router process reads of weir.yaml."""

    targets: dict[Name, TargetSettings] = Field(default_factory=_default_targets)
    """Places that can answer."""
    models: dict[Name, ModelSettings] = Field(default_factory=dict)
    """Names that clients may ask for. Those in `default_models` are added where the file does not name them."""
    default_model: str = "auto"
    """What an absent `model` means."""
    router: RouterBlock = RouterBlock()
    auth: AuthLimits = AuthLimits()
    ledger: LedgerPrices = LedgerPrices()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if faults := list(self._name_faults()):
            raise ValueError("\n".join(faults))
        return self

    def _name_faults(self) -> Iterator[str]:
        for name, model in self.models.items():
            if len(set(model.plan)) < len(model.plan):
                yield f"models.{name}.plan: names a target twice"
            known = ", ".join(self.targets)
            for target in model.plan:
                if target not in self.targets:
                    yield f"models.{name}.plan: no target {target!r} (targets: {known})"
            if len({self.targets[target].task for target in model.plan if target in self.targets}) > 1:
                yield f"models.{name}.plan: targets of different tasks"
        if self.default_model not in (models := self.all_models()):
            known = ", ".join(models) or "none, for there are no targets"
            yield f"default_model: no model {self.default_model!r} (models: {known})"
        elif (first := self.targets.get(models[self.default_model].plan[0])) and first.task != "chat":
            yield f"default_model: {self.default_model!r} answers no conversations"

    def all_models(self) -> dict[str, ModelSettings]:
        """The models of the file, and the default ones it does not name."""
        return {**default_models(self.targets), **self.models}

    def model_specs(self) -> dict[str, ModelSpec]:
        """Models as the domain's values."""
        return {
            name: ModelSpec(
                name,
                tuple(model.plan),
                model.policy == "auto",
                Task[self.targets[model.plan[0]].task.upper()],
            )
            for name, model in self.all_models().items()
        }


def default_models(targets: dict[str, TargetSettings]) -> dict[str, ModelSettings]:
    """Each target under its own name, and `auto`: the cloud's targets first, the local ones for what they do well."""
    named = {name: ModelSettings(plan=[name]) for name in targets}
    chat = {name: target for name, target in targets.items() if target.task == "chat"}
    cloud = [name for name, target in chat.items() if isinstance(target, CloudTargetSettings)]
    local = [name for name in chat if name not in cloud]
    plan = [*cloud, *local]
    return {**named, "auto": ModelSettings(plan=plan, policy="auto")} if plan else named
