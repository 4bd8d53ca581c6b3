"""Lists the models that a key may use and that can be used now: those with a target that is up."""

from __future__ import annotations

import msgspec

from gen.weir.router.v1 import Model
from services.router.domain.permissions import Permissions
from services.router.model_cards import ModelCards

_ENCODER = msgspec.json.Encoder()


class ListModels:
    """Router/ListModels and GET /v1/models."""

    def __init__(self, cards: ModelCards) -> None:
        self._cards = cards

    def models(self, permissions: Permissions) -> list[Model]:
        """As the contract has them, with the targets that are up."""
        return [card.message() for card in self._cards.usable(permissions)]

    def openai_json(self, permissions: Permissions) -> bytes:
        """The same in OpenAI's shape, with every target's health and price."""
        data = [card.openai() for card in self._cards.usable(permissions)]
        return _ENCODER.encode({"object": "list", "data": data})
