"""CloudAdapter/ListProviders: the configured providers and whether each can be used."""

from __future__ import annotations

from collections.abc import Mapping

from gen.weir.cloud.v1 import ListProvidersResponse
from services.cloud_adapter.ports import Provider


class ListProviders:
    """Knows what is configured; asks no provider."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers

    def __call__(self) -> ListProvidersResponse:
        """The providers in the order of the configuration."""
        return ListProvidersResponse(providers=[provider.listing for provider in self._providers.values()])
