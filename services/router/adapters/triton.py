"""Our own model behind NVIDIA Triton: KServe v2 over gRPC, one stream per request on a shared channel.

tritonclient's raw stubs are used, not its client: that one hides the final marker and cannot multiplex.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from dialects import chat_template
from dialects.chat_request import ChatRequest
from dialects.chat_template import TemplateName
from gen.weir.type.v1 import Target as TargetValue
from meshkit.errors import (
    ContextTooLong,
    InvalidRequest,
    RateLimited,
    UpstreamError,
    WeirError,
)
from services.router.adapters.triton_profile import TrtllmBls
from services.router.domain.target import TargetSpec
from services.router.ports import Piece

# Triton reports errors in-band as text without a code; the first phrase that occurs decides.
_PHRASES: tuple[tuple[str, type[WeirError]], ...] = (
    ("Exceeds maximum queue size", RateLimited),
    ("Request timeout expired", RateLimited),
    ("exceeds maximum input length", ContextTooLong),
    ("unknown model", UpstreamError),
    ("is not healthy", UpstreamError),
)


class TritonTarget:
    """One model of a Triton server (services.router.ports.Target).

    Args:
        channel: to the server; owned by the bootstrap.
        probe_every: how often readiness is asked for.
    """

    def __init__(
        self,
        spec: TargetSpec,
        channel: grpc.aio.Channel,
        template: TemplateName,
        probe_every: timedelta,
    ) -> None:
        self._spec = spec
        self._template = template
        self._probe_s = probe_every.total_seconds()
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._up = False

    @property
    def spec(self) -> TargetSpec:
        """As configured."""
        return self._spec

    def describe(self) -> TargetValue:
        """As it is shown and accounted for."""
        return self._spec.target

    def is_up(self) -> bool:
        """Whether the model was ready at the last probe, and no request since found the server gone."""
        return self._up

    async def watch(self) -> None:
        """Probes readiness until cancelled."""
        while True:
            await asyncio.sleep(self._probe_s)
            await self.probe()

    async def probe(self) -> None:
        """Asks once whether the model is ready."""
        request = service_pb2.ModelReadyRequest(name=self._spec.target.model)
        try:
            self._up = (await self._stub.ModelReady(request, timeout=self._probe_s)).ready
        except grpc.aio.AioRpcError:
            self._up = False

    async def generate(
        self, request: ChatRequest, request_id: str, *, stream: bool
    ) -> AsyncGenerator[Piece, None]:
        """The answer's text as it is made; `stream` changes nothing, a local answer always streams to here."""
        del stream
        profile = TrtllmBls(
            self._spec.target.model,
            chat_template.apply(self._template, request.typed.messages),
            request.typed,
            request_id,
            self._spec.default_max_output_tokens,
        )
        call = self._stub.ModelStreamInfer(_one(profile.infer_request()))
        try:
            async for message in call:
                if message.error_message:
                    raise self._in_band(message.error_message)
                self._up = True
                yield profile.read(message.infer_response)
        except grpc.aio.AioRpcError as error:
            raise self._out_of_band(error) from error
        finally:
            call.cancel()

    def _in_band(self, text: str) -> WeirError:
        kind = next((kind for phrase, kind in _PHRASES if phrase in text), UpstreamError)
        if "is not healthy" in text:
            # Its health endpoints stay green while every request fails, so the text is what counts.
            self._up = False
        return kind(f"{self._spec.name}: {text}")

    def _out_of_band(self, error: grpc.aio.AioRpcError) -> WeirError:
        if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidRequest(f"{self._spec.name}: {error.details()}")
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            self._up = False
        return UpstreamError(f"{self._spec.name}: {error.code().name.lower()}")


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request
