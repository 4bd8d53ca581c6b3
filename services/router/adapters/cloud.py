"""A provider behind the cloud adapter: the adapter's events are the router's pieces as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import cast

from dialects.embedding_answer import check_count
from dialects.request import Endpoint, PrefillStyle, Request
from gen.weir.cloud.v1 import EmbedRequest, GenerateRequest, ListProvidersRequest, Provider
from gen.weir.cloud.v1 import Endpoint as CloudEndpoint
from gen.weir.cloud.v1.service import CloudAdapterClient
from gen.weir.type.v1 import Target as TargetValue
from meshkit.errors import Cancelled, InternalFault, UpstreamError, UpstreamTimeout, WeirError
from meshkit.status import FOREIGN
from services.router.domain.estimate import estimated_usage, tokens_of
from services.router.domain.target import TargetSpec
from services.router.ports import Piece

_MISSES = 2
"""So many questions in a row must go unanswered: a busy machine misses one now and then."""


class CloudTarget:
    """One model of one provider (services.router.ports.Target)."""

    def __init__(self, spec: TargetSpec, client: CloudAdapterClient) -> None:
        self._spec = spec
        self._client = client
        self._described = spec.target
        self._up = False

    @property
    def spec(self) -> TargetSpec:
        """As configured."""
        return self._spec

    def describe(self) -> TargetValue:
        """As it is shown and accounted for; marked where the provider is a stand-in."""
        return self._described

    def is_up(self) -> bool:
        """Whether the adapter said at its last answer that the provider can be used."""
        return self._up

    def learn(self, provider: Provider | None) -> None:
        """Takes what the adapter says of this target's provider; None where it says nothing."""
        self._up = provider is not None and provider.usable
        if provider is not None:
            self._described = replace(self._spec.target, sandbox=provider.sandbox)

    async def generate(
        self, request: Request, request_id: str, *, stream: bool, prefill: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """The provider's answer, as chunks if `stream`, else in one piece."""
        try:
            if request.endpoint is Endpoint.EMBEDDINGS:
                yield await self._embedded(request, request_id)
                return
            call = self._call(request, request_id, stream=stream, prefill=prefill)
            answers = self._client.generate(call, timeout=self._spec.limits.total)
            async with aclosing(answers):
                async for piece in answers:
                    yield piece
        except WeirError as error:
            raise self._told(error) from error

    def _told(self, error: WeirError) -> WeirError:
        """The adapter's error; where it ended or broke, and nobody asked it to, one that another target has not."""
        if error.details.get(FOREIGN) == "UNAVAILABLE":
            return self._broken("the cloud adapter cannot be reached", error)
        if isinstance(error, (Cancelled, InternalFault)):
            return self._broken("the cloud adapter failed", error)
        return error

    def _broken(self, text: str, error: WeirError) -> UpstreamError:
        broken = UpstreamError(f"{self._spec.name}: {text}")
        broken.args = (f"{broken.message}: {error}",)
        return broken

    def _call(self, request: Request, request_id: str, *, stream: bool, prefill: str) -> GenerateRequest:
        if request.chat is not None and not self._spec.capabilities.has("responses"):
            request = request.chat
        style = cast("PrefillStyle", self._spec.capabilities.prefill or "plain")
        return GenerateRequest(
            provider=self._spec.target.provider,
            body=request.body(
                self._spec.target.model,
                stream=stream,
                prefill=prefill,
                prefill_tokens=tokens_of(len(prefill.encode())),
                style=style,
            ),
            stream=stream,
            hide_stream_usage=stream and not request.include_usage,
            request_id=request_id,
            connect_timeout=self._spec.limits.connect,
            endpoint=CloudEndpoint[request.endpoint.name],
        )

    async def _embedded(self, request: Request, request_id: str) -> Piece:
        call = EmbedRequest(
            provider=self._spec.target.provider,
            body=request.body(self._spec.target.model, stream=False),
            request_id=request_id,
            connect_timeout=self._spec.limits.connect,
        )
        answer = await self._client.embed(call, timeout=self._spec.limits.total)
        check_count(answer.body, request.choices)
        usage = answer.usage
        if usage is None:
            usage = estimated_usage(request.prompt_bytes, 0)
        return Piece(bodies=[answer.body], usage=usage, model=answer.model, content=True, finished=True)


class ProviderWatch:
    """Asks the cloud adapter at intervals which providers can be used, and tells the targets."""

    def __init__(self, client: CloudAdapterClient, targets: list[CloudTarget], every: timedelta) -> None:
        self._client = client
        self.targets = targets
        """Those that are told; may be replaced."""
        self._every = every
        self._missed = 0

    async def watch(self) -> None:
        """Asks until cancelled."""
        while True:
            await asyncio.sleep(self._every.total_seconds())
            await self.probe()

    async def probe(self) -> None:
        """Asks once, if there is anybody to tell. A refusal counts at once, silence when it repeats."""
        if not self.targets:
            return
        providers: dict[str, Provider] = {}
        try:
            answer = await self._client.list_providers(ListProvidersRequest(), timeout=self._every)
            providers = {provider.name: provider for provider in answer.providers}
            self._missed = 0
        except UpstreamTimeout:
            self._missed += 1
            if self._missed < _MISSES:
                return
        except WeirError:
            pass  # an adapter that does not answer has no provider that can be used
        for target in self.targets:
            target.learn(providers.get(target.spec.target.provider))
