"""Shows one configured model, and how its targets are."""

from __future__ import annotations

import msgspec

from services.router.domain.permissions import Permissions
from services.router.model_cards import ModelCards

_ENCODER = msgspec.json.Encoder()


class GetModel:
    """GET /v1/models/{id}."""

    def __init__(self, cards: ModelCards) -> None:
        self._cards = cards

    def openai_json(self, name: str, permissions: Permissions) -> bytes:
        """In OpenAI's shape, also while none of its targets is up. Raises ModelNotFound, Forbidden."""
        return _ENCODER.encode(self._cards.one(name, permissions).openai())
