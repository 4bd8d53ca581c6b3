"""CloudAdapter/ListProviders: the configured providers and whether each can be used."""

from __future__ import annotations

from collections.abc import Mapping

from gen.weir.cloud.v1 import ListProvidersResponse
from services.cloud_adapter.ports import Provider


class ListProviders:
    """Knows what was configured at the start; asks no provider."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._response = ListProvidersResponse(
            providers=[provider.listing for provider in providers.values()]
        )

    def __call__(self) -> ListProvidersResponse:
        """The providers in the order of the configuration."""
        return self._response
