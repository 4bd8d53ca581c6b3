"""The router's two faces: the typed contract, and OpenAI's format as bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from dialects.chat_answer import JSON_TYPE
from gen.google.api import HttpBody
from gen.rpc import Metadata, RpcContext
from gen.weir.openai.v1 import ListModelsRequest as OpenAIListModelsRequest
from gen.weir.openai.v1.service import OpenAIServicer
from gen.weir.router.v1 import GenerateRequest, GenerateResponse, ListModelsRequest, ListModelsResponse
from gen.weir.router.v1.service import RouterServicer
from gen.weir.type.v1 import Target
from meshkit.errors import BodyTooLarge
from services.router.authenticate import Authenticate
from services.router.chat_completions import ChatCompletions
from services.router.domain.attempt import Attempt
from services.router.generate import Generate
from services.router.list_models import ListModels

AUTHORIZATION = "authorization"


class TypedRouter(RouterServicer):
    """weir.router.v1.Router."""

    def __init__(self, authenticate: Authenticate, generate: Generate, list_models: ListModels) -> None:
        self._authenticate = authenticate
        self._generate = generate
        self._list_models = list_models

    async def generate(
        self, request: GenerateRequest, context: RpcContext
    ) -> AsyncIterator[GenerateResponse]:
        """Answers a conversation."""
        principal = await self._authenticate.authenticate(context.metadata.get(AUTHORIZATION))
        answer = self._generate.generate(request, principal, context.request_id, context.time_remaining())
        async with aclosing(answer) as events:
            async for event in events:
                if event.started is not None and event.started.target is not None:
                    started = event.started
                    await context.send_initial_metadata(
                        _headers(context.request_id, event.started.target, started.route_reason)
                    )
                yield event

    async def list_models(self, request: ListModelsRequest, context: RpcContext) -> ListModelsResponse:
        """Lists the models that can be used now."""
        await self._authenticate.authenticate(context.metadata.get(AUTHORIZATION))
        return ListModelsResponse(models=self._list_models.models())


class OpenAIFace(OpenAIServicer):
    """weir.openai.v1.OpenAI.

    Args:
        max_body_bytes: larger requests are refused.
    """

    def __init__(
        self,
        authenticate: Authenticate,
        chat_completions: ChatCompletions,
        list_models: ListModels,
        max_body_bytes: int,
    ) -> None:
        self._authenticate = authenticate
        self._chat_completions = chat_completions
        self._list_models = list_models
        self._max_body_bytes = max_body_bytes

    async def chat_completions(self, request: HttpBody, context: RpcContext) -> AsyncIterator[HttpBody]:
        """Answers a conversation."""
        principal = await self._authenticate.authenticate(context.metadata.get(AUTHORIZATION))
        if len(request.data) > self._max_body_bytes:
            raise BodyTooLarge(f"the body is over {self._max_body_bytes} bytes")
        parts = self._chat_completions.chat_completions(
            request.data, principal, context.request_id, context.time_remaining()
        )
        async with aclosing(parts):
            async for part in parts:
                if part.attempt is not None:
                    await context.send_initial_metadata(_attempt_headers(context.request_id, part.attempt))
                yield HttpBody(content_type=part.content_type, data=part.data)

    async def list_models(self, request: OpenAIListModelsRequest, context: RpcContext) -> HttpBody:
        """Lists the models that can be used now."""
        await self._authenticate.authenticate(context.metadata.get(AUTHORIZATION))
        return HttpBody(content_type=JSON_TYPE, data=self._list_models.openai_json())


def _attempt_headers(request_id: str, attempt: Attempt) -> Metadata:
    return _headers(request_id, attempt.target, attempt.reason)


def _headers(request_id: str, target: Target, reason: str) -> Metadata:
    name = f"{target.name} (sandbox)" if target.sandbox else target.name
    return (("x-request-id", request_id), ("x-weir-target", name), ("x-weir-route-reason", reason))
