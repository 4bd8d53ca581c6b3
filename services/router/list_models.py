"""Lists the models that can be used now: those with a target that answered its last probe."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gen.weir.router.v1 import Model
from services.router.domain.target import ModelSpec
from services.router.ports import Target

_ENCODER = msgspec.json.Encoder()


class ListModels:
    """Router/ListModels and GET /v1/models.

    Args:
        models: by name, in the order of the configuration.
        targets: by name.
        since_s: Unix time that OpenAI's `created` shows: when this router was configured.
    """

    def __init__(self, models: Mapping[str, ModelSpec], targets: Mapping[str, Target], since_s: int) -> None:
        self._models = models
        self._targets = targets
        self._since_s = since_s

    def models(self) -> list[Model]:
        """Models with the targets that are up."""
        listed = [
            Model(name=model.name, targets=[target.describe() for target in self._up(model)])
            for model in self._models.values()
        ]
        return [model for model in listed if model.targets]

    def openai_json(self) -> bytes:
        """The same in OpenAI's shape."""
        data = [
            {"id": model.name, "object": "model", "created": self._since_s, "owned_by": "weir"}
            for model in self.models()
        ]
        return _ENCODER.encode({"object": "list", "data": data})

    def _up(self, model: ModelSpec) -> list[Target]:
        return [self._targets[name] for name in model.targets if self._targets[name].is_up()]
