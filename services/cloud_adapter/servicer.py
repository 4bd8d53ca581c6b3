"""weir.cloud.v1.CloudAdapter on the mesh."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from gen.rpc import RpcContext
from gen.weir.cloud.v1 import (
    EmbedRequest,
    EmbedResponse,
    GenerateRequest,
    GenerateResponse,
    ListProvidersRequest,
    ListProvidersResponse,
)
from gen.weir.cloud.v1.service import CloudAdapterServicer


class CloudAdapter(CloudAdapterServicer):
    """One method per RPC; the work is the use cases'."""

    def __init__(
        self,
        generate: Callable[[GenerateRequest], AsyncIterator[GenerateResponse]],
        embed: Callable[[EmbedRequest], Awaitable[EmbedResponse]],
        list_providers: Callable[[], ListProvidersResponse],
    ) -> None:
        self._generate = generate
        self._embed = embed
        self._list_providers = list_providers

    def generate(self, request: GenerateRequest, context: RpcContext) -> AsyncIterator[GenerateResponse]:
        """Sends one request for text and yields what arrives."""
        request.request_id = request.request_id or context.request_id
        return self._generate(request)

    async def embed(self, request: EmbedRequest, context: RpcContext) -> EmbedResponse:
        """Sends one request for embeddings."""
        request.request_id = request.request_id or context.request_id
        return await self._embed(request)

    async def list_providers(
        self, request: ListProvidersRequest, context: RpcContext
    ) -> ListProvidersResponse:
        """Lists the configured providers."""
        return self._list_providers()
