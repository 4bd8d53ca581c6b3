"""The plan of a request: which targets to ask, in which order, and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gen.weir.type.v1 import Locality
from services.router.domain.target import ModelSpec, TargetSpec

SHORT_PROMPT_CHARS = 600
"""A longer prompt does not count as a short question."""
_CLASSIFIES = re.compile(
    r"\b(classif(y|ies|ication)|categori[sz]e|label (the|this|these)|sentiment|positive or negative"
    r"|true or false|yes or no|spam or|which (category|class|label)|one of the following)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One target of a plan, and why it stands at its place, in words that may be shown. ASCII."""

    target: TargetSpec
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be tried, in order. `unsupported` is the parameter that took out every target, if it did."""

    model: str
    steps: tuple[Step, ...]
    unsupported: str | None = None


def make_plan(
    model: ModelSpec,
    prompt: str,
    needs: Mapping[str, str],
    targets: Mapping[str, TargetSpec],
    is_up: Callable[[str], bool],
) -> Plan:
    """Orders the model's targets for one request.

    Args:
        model: what was asked for.
        prompt: the conversation's last text; read by `auto` alone.
        needs: capability -> parameter, see dialects.chat_request.
        targets: every configured target by name.
        is_up: whether a target answered its last probe; those that did not go last, for a probe may be wrong.
    """
    configured = [targets[name] for name in model.targets]
    able = [spec for spec in configured if spec.missing(needs) is None]
    unsupported = next((spec.missing(needs) for spec in configured), None) if not able else None
    ordered, reason = _order(model, prompt, able)
    up = [Step(spec, reason) for spec in ordered if is_up(spec.name)]
    down = [Step(spec, f"{reason}; {spec.name} is down") for spec in ordered if not is_up(spec.name)]
    if up and down and ordered[0].name == down[0].target.name:
        up[0] = Step(up[0].target, f"{reason}; {ordered[0].name} is down")
    return Plan(model.name, (*up, *down), unsupported)


def _order(model: ModelSpec, prompt: str, able: Sequence[TargetSpec]) -> tuple[list[TargetSpec], str]:
    if not model.auto:
        return list(able), f"model {model.name}"
    if is_classification(prompt):
        ordered = sorted(able, key=lambda spec: spec.target.locality != Locality.LOCAL)
        return ordered, "auto: short classification"
    return list(able), "auto: configured order"


def is_classification(prompt: str) -> bool:
    """A plain rule until prompts are scored: a short prompt that asks for a choice among few answers."""
    return len(prompt) <= SHORT_PROMPT_CHARS and _CLASSIFIES.search(prompt) is not None
