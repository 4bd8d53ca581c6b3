"""Answers one request: finds the model, plans, runs. What all faces of the router have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dialects.request import Endpoint, Request
from gen.rpc import Metadata
from gen.weir.router.v1 import Task
from gen.weir.type.v1 import Usage
from meshkit.errors import Forbidden, InvalidRequest, ModelNotFound, UnsupportedParameter
from services.router.domain.attempt import Asked
from services.router.domain.permissions import Caller
from services.router.domain.plan import Plan, Wanted, make_plan
from services.router.domain.target import Cap, ModelSpec
from services.router.run_plan import Arrival, RunPlan
from services.router.target_state import TargetState
from services.router.wishes import Wishes

_SHOWN_CHARS = 100
_TASK_WORDS = {Task.CHAT: "answers conversations", Task.EMBED: "makes embeddings"}


@dataclass(slots=True)
class Standing:
    """How a request under way stands with its limits."""

    headers: Metadata = ()
    """What its client is told of them; known before the first arrival."""
    used_tokens: int = 0
    """By its attempts that ended."""

    def ended(self, usage: Usage) -> None:
        """Notes what an attempt used."""
        self.used_tokens += usage.input_tokens + usage.output_tokens


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, and how it shall be routed."""

    caller: Caller
    request_id: str
    wishes: Wishes
    standing: Standing = field(default_factory=Standing)


class Answers(Protocol):
    """Turns a request and who asks into pieces of an answer: Answer, or what wraps one."""

    def plan(self, request: Request, asking: Asking) -> Plan:
        """What will be tried."""

    def run(self, plan: Plan, request: Request, asking: Asking) -> AsyncGenerator[Arrival, None]:
        """Pieces with the attempt that brought them, of a plan made before."""

    def answer(self, request: Request, asking: Asking) -> AsyncGenerator[Arrival, None]:
        """Both in one."""


class Answer:
    """Turns a request and who asks into pieces of an answer.

    Args:
        models: by name.
        default_model: what an absent model means; a key of `models`.
        states: every target, by name.
        runner: the attempt loop.
        draw: a random number in [0, 1).
    """

    def __init__(
        self,
        models: Mapping[str, ModelSpec],
        default_model: str,
        states: Mapping[str, TargetState],
        runner: RunPlan,
        draw: Callable[[], float],
    ) -> None:
        self._models = models
        self._default_model = default_model
        self._states = states
        self._runner = runner
        self._draw = draw

    def take_over(
        self,
        models: Mapping[str, ModelSpec],
        default_model: str,
        states: Mapping[str, TargetState],
        runner: RunPlan,
    ) -> None:
        """From now on requests are planned and run by these. Nobody awaits anything between `plan` and `run`."""
        self._models = models
        self._default_model = default_model
        self._states = states
        self._runner = runner

    def answer(self, request: Request, asking: Asking) -> AsyncGenerator[Arrival, None]:
        """Pieces with the attempt that brought them, see RunPlan.run.

        Raises at once what `plan` raises.
        """
        return self.run(self.plan(request, asking), request, asking)

    def run(self, plan: Plan, request: Request, asking: Asking) -> AsyncGenerator[Arrival, None]:
        """As `answer`, for a plan that was made before."""
        wishes = asking.wishes
        asked = Asked(
            asking.request_id,
            asking.caller.principal,
            plan.model,
            request.prompt_bytes,
            wishes.patience,
            asking.standing.ended,
        )
        return self._runner.run(plan, asked, request, wishes.on_cut)

    def plan(self, request: Request, asking: Asking) -> Plan:
        """What will be tried.

        Raises ModelNotFound, Forbidden, UnsupportedParameter, and InvalidRequest where the wishes name what is not
        there or a model does something else.
        """
        models = list(self._asked_models(request, asking))
        may_use = asking.caller.permissions.may_use_target
        specs = {name: self._states[name].spec for model in models for name in model.targets if may_use(name)}
        if not specs:
            raise Forbidden(f"the key may not use any target of {models[0].name!r}", param="model")
        self._check_targets(asking, specs)
        auto = any(model.auto for model in models) and request.typed.messages
        wanted = Wanted(
            models,
            request.typed.messages[-1].content if auto else "",
            request.needs,
            None if (cap := request.max_output_tokens) is None else Cap(cap, request.cap_param),
            asking.wishes.targets,
        )
        plan = make_plan(wanted, specs, self._is_up, self._draw)
        if plan.unsupported is not None:
            raise _unsupported(plan.model, plan.unsupported, request)
        return plan

    def _asked_models(self, request: Request, asking: Asking) -> Iterator[ModelSpec]:
        names = {"model": request.typed.model or self._default_model}
        names |= {f"fallbacks[{at}]": name for at, name in enumerate(request.fallbacks)}
        names |= {f"route.fallbacks[{at}]": name for at, name in enumerate(asking.wishes.fallbacks)}
        task = Task.EMBED if request.endpoint is Endpoint.EMBEDDINGS else Task.CHAT
        for param, name in names.items():
            model = self._models.get(name)
            if model is None:
                raise ModelNotFound(f"the model {name[:_SHOWN_CHARS]!r} does not exist", param=param)
            if not asking.caller.permissions.may_use_model(name):
                raise Forbidden(f"the key may not use the model {name!r}", param=param)
            if model.task is not task:
                raise InvalidRequest(f"{param}: {name!r} {_TASK_WORDS[model.task]}", param=param)
            yield model

    def _check_targets(self, asking: Asking, specs: Mapping[str, object]) -> None:
        param = asking.wishes.targets_param
        for name in asking.wishes.targets:
            if name in specs:
                continue
            if name in self._states and not asking.caller.permissions.may_use_target(name):
                raise Forbidden(f"the key may not use the target {name!r}", param=param)
            raise InvalidRequest(
                f"{name[:_SHOWN_CHARS]!r} is no target of this model", param=asking.wishes.targets_param
            )

    def _is_up(self, target: str) -> bool:
        return self._states[target].is_up()


def _unsupported(model: str, param: str, request: Request) -> UnsupportedParameter:
    """The error for a parameter that took out every target: it names the capability that would do."""
    need = next((need for need, name in request.needs.items() if name == param), None)
    why = "more than any of its targets gives" if need is None else f"it lacks the capability {need!r}"
    return UnsupportedParameter(f"{param}: not supported by model {model!r}: {why}", param=param)
