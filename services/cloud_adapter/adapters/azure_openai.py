"""Azure OpenAI, as the openai SDK's AsyncAzureOpenAI addresses and authenticates it.

There a model is reached by the name of its deployment, which is a part of the path for all but the Responses API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from openai import AsyncAzureOpenAI

from services.cloud_adapter.adapters.family import UNSHOWN, common_headers
from services.cloud_adapter.ports import Question, Resource, UnreachableError
from services.cloud_adapter.settings import ProviderSettings

_DOTS = frozenset({"", ".", ".."})
"""Names that would make another path."""


class _Named(msgspec.Struct):
    model: str


_NAMED = msgspec.json.Decoder(_Named)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class AzureOpenAI:
    """One Azure resource (services.cloud_adapter.adapters.family.Family)."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        self._sdk = AsyncAzureOpenAI(
            azure_endpoint=settings.base_url,
            api_version=settings.api_version,
            api_key=UNSHOWN,
            max_retries=0,
        )
        self._base = str(self._sdk.base_url)
        self._query = urlencode({name: str(value) for name, value in self._sdk.default_query.items()})

    def addressed(self, question: Question) -> tuple[str, bytes]:
        """Below the deployment of the model that the body names; the Responses API has the deployment in its body."""
        model = _model(question.body)
        deployment = self._settings.deployments.get(model, model)
        if question.resource is not Resource.RESPONSES:
            return self._url(f"deployments/{_segment(deployment)}/{question.resource}"), question.body
        body = question.body if deployment == model else _renamed(question.body, deployment)
        return self._url(question.resource), body

    def headers(self, secret: str) -> Mapping[str, str]:
        """With `api-key`, or `authorization` where the secret is an Entra token."""
        by_token = self._settings.azure_ad_token_file is not None
        shown: dict[str, Any] = {"azure_ad_token": secret} if by_token else {"api_key": secret}
        return {**common_headers(self._sdk, {}), **(self._sdk.copy(**shown).auth_headers if secret else {})}

    async def close(self) -> None:
        """Closes the SDK's client."""
        await self._sdk.close()

    def _url(self, path: str) -> str:
        return f"{self._base}{path}?{self._query}"


def _model(body: bytes) -> str:
    try:
        return _NAMED.decode(body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreachableError("the request names no model, and its deployment is its address") from error


def _segment(deployment: str) -> str:
    if deployment in _DOTS:
        raise UnreachableError(f"{deployment!r} is no deployment's name")
    return quote(deployment, safe="")


def _renamed(body: bytes, model: str) -> bytes:
    """The same request of another model."""
    fields = _FIELDS.decode(body)
    return msgspec.json.encode({**fields, "model": model})
