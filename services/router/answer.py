"""Answers one conversation: finds the model, plans, runs. What both faces of the router have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta

from dialects.chat_request import ChatRequest
from gen.weir.type.v1 import Principal
from meshkit.errors import ModelNotFound
from services.router.domain.attempt import Asked, Attempt
from services.router.domain.plan import Plan, make_plan
from services.router.domain.target import ModelSpec
from services.router.ports import Piece, Target
from services.router.run_plan import RunPlan


class Answer:
    """Turns a request and its principal into pieces of an answer.

    Args:
        models: by name.
        default_model: what an absent model means; a key of `models`.
    """

    def __init__(
        self,
        models: Mapping[str, ModelSpec],
        default_model: str,
        targets: Mapping[str, Target],
        runner: RunPlan,
    ) -> None:
        self._models = models
        self._default_model = default_model
        self._targets = targets
        self._runner = runner

    def answer(
        self,
        request: ChatRequest,
        principal: Principal,
        request_id: str,
        patience: timedelta | None = None,
    ) -> AsyncGenerator[tuple[Attempt, Piece], None]:
        """Pieces with the attempt that brought them, see RunPlan.run. Raises ModelNotFound at once.

        `patience` is how long the caller waits; None means without limit.
        """
        plan = self.plan(request)
        asked = Asked(request_id, principal, plan.model, request.prompt_bytes, patience)
        return self._runner.run(plan, asked, request)

    def plan(self, request: ChatRequest) -> Plan:
        """What will be tried. Raises ModelNotFound."""
        name = request.typed.model or self._default_model
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(f"the model {name[:100]!r} does not exist", param="model")
        specs = {target: self._targets[target].spec for target in model.targets}
        prompt = request.typed.messages[-1].content if model.auto else ""
        return make_plan(model, prompt, request.needs, specs, self._is_up)

    def _is_up(self, target: str) -> bool:
        return self._targets[target].is_up()
