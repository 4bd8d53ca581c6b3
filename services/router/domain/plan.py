"""The plan of a request: which targets to ask, in which order, and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gen.weir.type.v1 import Locality
from services.router.domain.target import Cap, ModelSpec, TargetSpec

SHORT_PROMPT_CHARS = 600
"""A longer prompt does not count as a short question."""
_CLASSIFIES = re.compile(
    r"\b(classif(y|ies|ication)|categori[sz]e|label (the|this|these)|sentiment|positive or negative"
    r"|true or false|yes or no|spam or|which (category|class|label)|one of the following)\b",
    re.IGNORECASE,
)
_REQUESTED = "x-weir-targets"


@dataclass(frozen=True, slots=True)
class Step:
    """One target of a plan, and why it stands at its place, in words that may be shown. ASCII."""

    target: TargetSpec
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be tried, in order. `unsupported` is the parameter that took out every target, if it did."""

    model: str
    """What was asked for."""
    steps: tuple[Step, ...]
    unsupported: str | None = None
    first_model: str = ""
    """Whose target comes first: a fallback where the caller, or what the request needs, passes over all before it."""

    @property
    def limited_as(self) -> str:
        """The model whose limits apply: else nobody who names it as a fallback would keep within them."""
        return self.first_model or self.model


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a plan is made for."""

    models: Sequence[ModelSpec]
    """What was asked for, then its fallbacks."""
    prompt: str
    """The conversation's last text; read by `auto` alone."""
    needs: Mapping[str, str]
    """Capability -> parameter, see dialects.chat_request."""
    cap: Cap | None = None
    only: Sequence[str] = ()
    """The only targets that may be asked, in this order; empty means all in the plan's own."""


def make_plan(
    wanted: Wanted,
    targets: Mapping[str, TargetSpec],
    is_up: Callable[[str], bool],
    draw: Callable[[], float],
) -> Plan:
    """Orders the targets for one request.

    Args:
        wanted: what was asked for.
        targets: by name: every target that may be asked.
        is_up: whether a target is thought to answer; those that are not go last, for that may be wrong.
        draw: a random number in [0, 1); for targets that share requests by weight.
    """
    steps: dict[str, Step] = {}
    models: dict[str, str] = {}
    unsupported: list[str] = []
    for number, model in enumerate(wanted.models):
        named = [
            targets[name]
            for name in model.targets
            if name in targets and name not in steps and (not wanted.only or name in wanted.only)
        ]
        able = []
        for spec in named:
            missing = spec.missing(wanted.needs, wanted.cap)
            if missing is None:
                able.append(spec)
            else:
                unsupported.append(missing)
        ordered, reason = _order(model, wanted.prompt, by_priority(able, draw))
        why = f"fallback {model.name}" if number else reason
        steps.update({spec.name: Step(spec, why) for spec in ordered})
        models |= {spec.name: model.name for spec in ordered}
    if wanted.only:
        steps = {name: Step(steps[name].target, _REQUESTED) for name in wanted.only if name in steps}
    in_order = _up_first(tuple(steps.values()), is_up)
    return Plan(
        wanted.models[0].name,
        in_order,
        unsupported[0] if unsupported and not steps else None,
        models[in_order[0].target.name] if in_order else "",
    )


def by_priority(specs: Sequence[TargetSpec], draw: Callable[[], float]) -> list[TargetSpec]:
    """The lower priority first; among equals those with a weight stand together, in an order drawn by weight."""
    ordered: list[TargetSpec] = []
    for priority in sorted({spec.priority for spec in specs}):
        equals = [spec for spec in specs if spec.priority == priority]
        weighted = iter(_drawn([spec for spec in equals if spec.weight is not None], draw))
        ordered += [spec if spec.weight is None else next(weighted) for spec in equals]
    return ordered


def _drawn(specs: list[TargetSpec], draw: Callable[[], float]) -> list[TargetSpec]:
    drawn = []
    while specs:
        point = draw() * sum(spec.weight or 0.0 for spec in specs)
        for spec in specs:
            point -= spec.weight or 0.0
            if point < 0:
                break
        drawn.append(spec)
        specs = [left for left in specs if left is not spec]
    return drawn


def _up_first(steps: tuple[Step, ...], is_up: Callable[[str], bool]) -> tuple[Step, ...]:
    up = [step for step in steps if is_up(step.target.name)]
    if len(up) == len(steps):
        return steps
    down = [
        Step(step.target, f"{step.reason}; {step.target.name} is down") for step in steps if step not in up
    ]
    if up and steps[0] not in up:
        up[0] = Step(up[0].target, f"{up[0].reason}; {steps[0].target.name} is down")
    return (*up, *down)


def _order(model: ModelSpec, prompt: str, able: list[TargetSpec]) -> tuple[list[TargetSpec], str]:
    if not model.auto:
        return able, f"model {model.name}"
    if is_classification(prompt):
        ordered = sorted(able, key=lambda spec: spec.target.locality != Locality.LOCAL)
        return ordered, "auto: short classification"
    return able, "auto: configured order"


def is_classification(prompt: str) -> bool:
    """A plain rule until prompts are scored: a short prompt that asks for a choice among few answers."""
    return len(prompt) <= SHORT_PROMPT_CHARS and _CLASSIFIES.search(prompt) is not None
