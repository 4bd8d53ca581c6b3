"""Providers that speak OpenAI's HTTP API, as the openai SDK's AsyncOpenAI addresses and authenticates it."""

from __future__ import annotations

from collections.abc import Mapping

from openai import AsyncOpenAI

from services.cloud_adapter.adapters.family import UNSHOWN, common_headers
from services.cloud_adapter.ports import Question, Resource
from services.cloud_adapter.settings import ProviderSettings


class OpenAICompatible:
    """One of them (services.cloud_adapter.adapters.family.Family)."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        self._sdk = AsyncOpenAI(api_key=UNSHOWN, base_url=settings.base_url, max_retries=0)
        self._urls = {resource: str(self._sdk.base_url.join(resource)) for resource in Resource}

    def addressed(self, question: Question) -> tuple[str, bytes]:
        """The same path as OpenAI's; the body as it is."""
        return self._urls[question.resource], question.body

    def headers(self, secret: str) -> Mapping[str, str]:
        """With `authorization`, the organisation and the project."""
        shown = self._sdk.copy(api_key=secret).auth_headers if secret else {}
        named = {
            "openai-organization": self._settings.organization,
            "openai-project": self._settings.project,
        }
        return {**common_headers(self._sdk, named), **shown}

    async def close(self) -> None:
        """Closes the SDK's client."""
        await self._sdk.close()
