"""The router's two faces: the typed contract, and OpenAI's format as bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from dialects.rendering import JSON_TYPE
from gen.google.api import HttpBody
from gen.rpc import Metadata, RpcContext
from gen.weir.auth.v1 import Scope
from gen.weir.openai.v1 import GetModelRequest
from gen.weir.openai.v1 import ListModelsRequest as OpenAIListModelsRequest
from gen.weir.openai.v1.service import OpenAIServicer
from gen.weir.router.v1 import (
    EmbedRequest,
    EmbedResponse,
    GenerateRequest,
    GenerateResponse,
    ListModelsRequest,
    ListModelsResponse,
)
from gen.weir.router.v1.service import RouterServicer
from gen.weir.type.v1 import Target
from meshkit.errors import BodyTooLarge
from services.router.answer import Asking, Standing
from services.router.chat_completions import ChatCompletions
from services.router.completions import Completions
from services.router.deliver import Part
from services.router.domain.permissions import Caller
from services.router.door import Door
from services.router.embed import Embed
from services.router.embeddings import Embeddings
from services.router.generate import Generate
from services.router.get_model import GetModel
from services.router.list_models import ListModels
from services.router.ports import Clock
from services.router.responses import Responses
from services.router.wishes import read_wishes

_MS_PER_S = 1_000
_ROUTER: Final = {method.name: method.path for method in RouterServicer.METHODS}
_OPENAI: Final = {method.name: method.path for method in OpenAIServicer.METHODS}
_ASKING: Final = (Scope.CHAT, Scope.EMBED)
"""Whoever may ask for something may see what there is."""


class _Face:
    """What both faces have in common: who asks, and what an answer's headers say."""

    def __init__(self, door: Door, clock: Clock) -> None:
        self._door = door
        self._clock = clock

    def _asking(self, caller: Caller, context: RpcContext) -> Asking:
        wishes = read_wishes(context.metadata, context.time_remaining())
        return Asking(caller, context.request_id, wishes)

    def _headers(
        self,
        context: RpcContext,
        target: Target,
        reason: str,
        attempts: int,
        begun_s: float,
        standing: Standing,
    ) -> Metadata:
        name = f"{target.name} (sandbox)" if target.sandbox else target.name
        return (
            *self._labels(context, begun_s),
            ("x-weir-target", name),
            ("x-weir-route-reason", reason),
            ("x-weir-attempts", str(attempts)),
            *standing.headers,
        )

    def _labels(self, context: RpcContext, begun_s: float) -> Metadata:
        """The headers of every answer."""
        took_ms = round((self._clock.monotonic() - begun_s) * _MS_PER_S)
        return ("x-request-id", context.request_id), ("openai-processing-ms", str(took_ms))


class TypedRouter(_Face, RouterServicer):
    """weir.router.v1.Router."""

    def __init__(
        self,
        door: Door,
        clock: Clock,
        generate: Generate,
        embed: Embed,
        list_models: ListModels,
    ) -> None:
        super().__init__(door, clock)
        self._generate = generate
        self._embed = embed
        self._list_models = list_models

    async def generate(
        self, request: GenerateRequest, context: RpcContext
    ) -> AsyncIterator[GenerateResponse]:
        """Answers a conversation."""
        begun_s = self._clock.monotonic()
        async with self._door.opened(context, _ROUTER["generate"], Scope.CHAT) as caller:
            asking = self._asking(caller, context)
            async with aclosing(self._generate.generate(request, asking)) as events:
                async for event in events:
                    await self._send_headers(event, context, begun_s, asking.standing)
                    yield event

    async def _send_headers(
        self, event: GenerateResponse, context: RpcContext, begun_s: float, standing: Standing
    ) -> None:
        started = event.started
        if started is not None and started.target is not None:
            headers = self._headers(
                context, started.target, started.route_reason, started.attempts, begun_s, standing
            )
            await context.send_initial_metadata(headers)

    async def embed(self, request: EmbedRequest, context: RpcContext) -> EmbedResponse:
        """Turns texts into vectors."""
        begun_s = self._clock.monotonic()
        async with self._door.opened(context, _ROUTER["embed"], Scope.EMBED) as caller:
            asking = self._asking(caller, context)
            answer = await self._embed.embed(request, asking)
        if answer.target is not None:
            headers = self._headers(
                context, answer.target, answer.route_reason, answer.attempts, begun_s, asking.standing
            )
            await context.send_initial_metadata(headers)
        return answer

    async def list_models(self, request: ListModelsRequest, context: RpcContext) -> ListModelsResponse:
        """Lists the models that can be used now."""
        async with self._door.opened(context, _ROUTER["list_models"], *_ASKING) as caller:
            return ListModelsResponse(models=self._list_models.models(caller.permissions))


@dataclass(frozen=True, slots=True)
class OpenAIUseCases:
    """What the OpenAI face calls: one for each of its methods."""

    chat_completions: ChatCompletions
    completions: Completions
    responses: Responses
    embeddings: Embeddings
    list_models: ListModels
    get_model: GetModel


class OpenAIFace(_Face, OpenAIServicer):
    """weir.openai.v1.OpenAI.

    Args:
        max_body_bytes: larger requests are refused.
    """

    def __init__(self, door: Door, clock: Clock, use_cases: OpenAIUseCases, max_body_bytes: int) -> None:
        super().__init__(door, clock)
        self._use_cases = use_cases
        self._max_body_bytes = max_body_bytes

    def chat_completions(self, request: HttpBody, context: RpcContext) -> AsyncIterator[HttpBody]:
        """Answers a conversation."""
        return self._answered(
            "chat_completions", self._use_cases.chat_completions.chat_completions, request, context
        )

    def completions(self, request: HttpBody, context: RpcContext) -> AsyncIterator[HttpBody]:
        """Continues a prompt."""
        return self._answered("completions", self._use_cases.completions.completions, request, context)

    def responses(self, request: HttpBody, context: RpcContext) -> AsyncIterator[HttpBody]:
        """Answers in typed items."""
        return self._answered("responses", self._use_cases.responses.responses, request, context)

    async def embeddings(self, request: HttpBody, context: RpcContext) -> HttpBody:
        """Turns texts into vectors."""
        begun_s = self._clock.monotonic()
        async with self._door.opened(context, _OPENAI["embeddings"], Scope.EMBED) as caller:
            self._check_size(request)
            asking = self._asking(caller, context)
            part = await self._use_cases.embeddings.embeddings(request.data, asking)
        return await self._sent(part, context, begun_s, asking.standing)

    async def list_models(self, request: OpenAIListModelsRequest, context: RpcContext) -> HttpBody:
        """Lists the models that can be used now."""
        begun_s = self._clock.monotonic()
        async with self._door.opened(context, _OPENAI["list_models"], *_ASKING) as caller:
            data = self._use_cases.list_models.openai_json(caller.permissions)
        await context.send_initial_metadata(self._labels(context, begun_s))
        return HttpBody(content_type=JSON_TYPE, data=data)

    async def get_model(self, request: GetModelRequest, context: RpcContext) -> HttpBody:
        """Shows one model."""
        begun_s = self._clock.monotonic()
        async with self._door.opened(context, _OPENAI["get_model"], *_ASKING) as caller:
            data = self._use_cases.get_model.openai_json(request.model, caller.permissions)
        await context.send_initial_metadata(self._labels(context, begun_s))
        return HttpBody(content_type=JSON_TYPE, data=data)

    def _check_size(self, request: HttpBody) -> None:
        """Raises BodyTooLarge."""
        if len(request.data) > self._max_body_bytes:
            raise BodyTooLarge(f"the body is over {self._max_body_bytes} bytes")

    async def _answered(
        self,
        method: str,
        answer: Callable[[bytes, Asking], AsyncGenerator[Part, None]],
        request: HttpBody,
        context: RpcContext,
    ) -> AsyncGenerator[HttpBody, None]:
        begun_s = self._clock.monotonic()
        async with self._door.opened(context, _OPENAI[method], Scope.CHAT) as caller:
            asking = self._asking(caller, context)
            self._check_size(request)
            async with aclosing(answer(request.data, asking)) as parts:
                async for part in parts:
                    yield await self._sent(part, context, begun_s, asking.standing)

    async def _sent(self, part: Part, context: RpcContext, begun_s: float, standing: Standing) -> HttpBody:
        """A part as a message; the first one sends the headers before it."""
        if (attempt := part.attempt) is not None:
            headers = self._headers(context, attempt.target, attempt.reason, part.attempts, begun_s, standing)
            await context.send_initial_metadata(headers)
        return HttpBody(content_type=part.content_type, data=part.data)
