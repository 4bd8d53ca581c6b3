"""An embedding model behind Triton: texts in unary batches, vectors out.

The model's contract: input `text` STRING [n, 1]; outputs `embedding` FP32 [n, d] and `num_input_tokens` INT32 [n, 1].
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import grpc
from tritonclient.grpc import service_pb2

from dialects.embedding_answer import render
from dialects.request import Endpoint, Request
from gen.weir.type.v1 import Usage
from meshkit.errors import UnsupportedParameter, UpstreamError, UpstreamTimeout
from services.router.adapters.triton_errors import out_of_band
from services.router.adapters.triton_model import TritonModel
from services.router.adapters.triton_tensors import add_strings, int32s, outputs
from services.router.domain.target import TargetSpec
from services.router.ports import Piece


@dataclass(slots=True)
class _Embedded:
    """Vectors so far, each the little-endian float32 of its coordinates, and the tokens they took."""

    vectors: list[bytes] = field(default_factory=list)
    tokens: int = 0


class TritonEmbedTarget(TritonModel):
    """One embedding model of a Triton server (services.router.ports.Target).

    Args:
        channel: to the server; owned by the bootstrap.
        probe_every: how often readiness is asked for.
        max_batch: texts in one call; at most the model's own `max_batch_size`.
    """

    def __init__(
        self, spec: TargetSpec, channel: grpc.aio.Channel, probe_every: timedelta, max_batch: int = 32
    ) -> None:
        super().__init__(spec, channel, probe_every)
        self._max_batch = max_batch

    async def generate(
        self, request: Request, request_id: str, *, stream: bool, prefill: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """OpenAI's list of embeddings as one piece. EMBEDDINGS of texts only; batches are sent one after the other."""
        del stream, prefill
        if request.endpoint is not Endpoint.EMBEDDINGS or not request.inputs:
            raise UnsupportedParameter(f"{self._spec.name}: embeds texts, and nothing else", param="input")
        limit = self._spec.limits.total
        try:
            async with asyncio.timeout(limit.total_seconds()):
                done = await self._embed(request.inputs, request_id)
        except TimeoutError:
            raise UpstreamTimeout(
                f"{self._spec.name}: no whole answer within {limit.total_seconds():g} s"
            ) from None
        usage = Usage(input_tokens=done.tokens)
        body = render(done.vectors, self._spec.target.model, usage, request.encoding)
        yield Piece(bodies=[body], usage=usage, content=True, finished=True)

    async def _embed(self, texts: Sequence[str], request_id: str) -> _Embedded:
        done = _Embedded()
        for begin in range(0, len(texts), self._max_batch):
            await self._embed_batch(texts[begin : begin + self._max_batch], request_id, done)
        return done

    async def _embed_batch(self, texts: Sequence[str], request_id: str, done: _Embedded) -> None:
        infer = service_pb2.ModelInferRequest(model_name=self._spec.target.model, id=request_id)
        add_strings(infer, "text", texts, [len(texts), 1])
        try:
            # Reaches Triton as the call's deadline, so that it does not work for nobody.
            answer = await self._stub.ModelInfer(infer, timeout=self._spec.limits.total.total_seconds())
        except grpc.aio.AioRpcError as failure:
            error = out_of_band(self._spec.name, failure)
            self._readiness.failed(error)
            raise error from failure
        self._readiness.answered()
        read = dict(outputs(answer))
        raw, counts = read.get("embedding", b""), int32s(read.get("num_input_tokens", b""))
        if not raw or len(raw) % len(texts) or len(counts) != len(texts):
            raise UpstreamError(f"{self._spec.name}: not one vector and count for each of {len(texts)} texts")
        size = len(raw) // len(texts)
        done.vectors += [raw[at : at + size] for at in range(0, len(raw), size)]
        done.tokens += sum(counts)
