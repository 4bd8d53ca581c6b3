"""What the router shows of its models: to each key only what that key may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from gen.weir.router.v1 import Model, Task
from gen.weir.type.v1 import Locality
from gen.weir.type.v1 import Target as TargetValue
from meshkit.errors import Forbidden, ModelNotFound
from pricing.price_list import Price, PriceList
from services.router.domain.permissions import Permissions
from services.router.domain.target import Capabilities, ModelSpec
from services.router.ports import Clock
from services.router.target_state import TargetState

CAPABILITIES: Final = ("audio", "file", "json_schema", "tools", "vision")
"""Those that are shown, under the names that they have in the settings. `responses` is none of them: POST /v1/responses
is answered by any model that answers conversations."""
_SHOWN_CHARS = 100
_LOCALITIES = {Locality.LOCAL: "local", Locality.CLOUD: "cloud"}
_TASKS = {Task.CHAT: "chat", Task.EMBED: "embed"}
_UNIT = "nano_usd_per_million_tokens"


class ModelCard:
    """One model with the targets that may answer one key.

    Args:
        targets: those, in order of preference; not empty.
        price_of: the price that holds for a target now.
        created_s: Unix time that OpenAI's `created` shows.
    """

    def __init__(
        self,
        model: ModelSpec,
        targets: Sequence[TargetState],
        price_of: Callable[[TargetValue], Price | None],
        created_s: int,
    ) -> None:
        self._model = model
        self._targets = targets
        self._price_of = price_of
        self._created_s = created_s

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent to one of its targets now."""
        return any(state.is_up() for state in self._targets)

    def message(self) -> Model:
        """As the contract has it, with the targets that are up."""
        return Model(
            name=self._model.name,
            targets=[state.target.describe() for state in self._targets if state.is_up()],
            task=self._model.task,
            context_window=self._least(lambda can: can.context_window) or 0,
            capabilities=self._capabilities(),
        )

    def openai(self) -> dict[str, Any]:
        """As OpenAI shows a model, and more: every target with its health and price."""
        return {
            "id": self._model.name,
            "object": "model",
            "created": self._created_s,
            "owned_by": "weir",
            "task": _TASKS.get(self._model.task),
            "context_window": self._least(lambda can: can.context_window),
            "max_output_tokens": self._least(lambda can: can.max_output_tokens),
            "capabilities": self._capabilities(),
            "targets": [self._target(state) for state in self._targets],
        }

    def _capabilities(self) -> list[str]:
        """What one of its targets at least is sent; whether a provider's model can do it, the provider says."""
        if self._model.task is not Task.CHAT:
            return []
        return [
            name for name in CAPABILITIES if any(state.spec.capabilities.has(name) for state in self._targets)
        ]

    def _least(self, of: Callable[[Capabilities], int | None]) -> int | None:
        """Tokens that every target takes; None where one does not say."""
        tokens = [of(state.spec.capabilities) for state in self._targets]
        known = [count for count in tokens if count is not None]
        return min(known) if len(known) == len(tokens) else None

    def _target(self, state: TargetState) -> dict[str, Any]:
        target = state.target.describe()
        return {
            "name": target.name,
            "locality": _LOCALITIES.get(target.locality),
            "provider": target.provider,
            "model": target.model,
            "sandbox": target.sandbox,
            "healthy": state.is_up(),
            "state": state.word(),
            "pricing": _pricing(self._price_of(target)),
        }


class ModelCards:
    """All models.

    Args:
        models: by name, in the order of the configuration.
        states: every target, by name.
        since_s: Unix time at which this router was configured.
    """

    def __init__(
        self,
        models: Mapping[str, ModelSpec],
        states: Mapping[str, TargetState],
        prices: PriceList,
        clock: Clock,
        since_s: int,
    ) -> None:
        self._models = models
        self._states = states
        self._prices = prices
        self._clock = clock
        self._since_s = since_s

    def take_over(
        self, models: Mapping[str, ModelSpec], states: Mapping[str, TargetState], prices: PriceList
    ) -> None:
        """From now on these are shown."""
        self._models = models
        self._states = states
        self._prices = prices

    def usable(self, permissions: Permissions) -> Iterator[ModelCard]:
        """Those that a key may use and that can be used now."""
        for model in self._models.values():
            card = self._card(model, permissions) if permissions.may_use_model(model.name) else None
            if card is not None and card.is_usable:
                yield card

    def one(self, name: str, permissions: Permissions) -> ModelCard:
        """A configured model, usable now or not. Raises ModelNotFound, Forbidden."""
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(f"the model {name[:_SHOWN_CHARS]!r} does not exist", param="model")
        if not permissions.may_use_model(name):
            raise Forbidden(f"the key may not use the model {name!r}", param="model")
        card = self._card(model, permissions)
        if card is None:
            raise Forbidden(f"the key may not use any target of {name!r}", param="model")
        return card

    def _card(self, model: ModelSpec, permissions: Permissions) -> ModelCard | None:
        """None where no target of the model may answer the key."""
        states = [self._states[name] for name in model.targets if permissions.may_use_target(name)]
        states.sort(key=lambda state: state.spec.priority)
        return ModelCard(model, states, self._price_now, self._since_s) if states else None

    def _price_now(self, target: TargetValue) -> Price | None:
        return self._prices.price_of(target, self._clock.now())


def _pricing(price: Price | None) -> dict[str, Any] | None:
    if price is None:
        return None
    rates = price.rates
    return {
        "input": rates.input,
        "cached_input": rates.cached_input,
        "output": rates.output,
        "unit": _UNIT,
        "currency": "USD",
    }
