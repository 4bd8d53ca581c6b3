"""A KServe v2 server that answers as it is told, over real gRPC."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

# The generated base class is untyped.
_Base: Any = service_pb2_grpc.GRPCInferenceServiceServicer


@dataclass
class Say:
    """One in-band response: text and its token counts, an error text, or silence."""

    text: str = ""
    output_tokens: int = 0
    input_tokens: int = 0
    final: bool = False
    error: str = ""
    hang: bool = False


@dataclass
class FakeTriton:
    """Plays `script` for every request. `address` is known once started."""

    script: Sequence[Say]
    ready: bool = True
    requests: list[Any] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = ""

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Servicer(self), self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    def input(self, name: str) -> bytes | None:
        """The raw bytes of one input of the last request."""
        request = self.requests[-1]
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            if tensor.name == name:
                return bytes(raw)
        return None


class _Servicer(_Base):  # type: ignore[misc]  # see _Base
    def __init__(self, fake: FakeTriton) -> None:
        self._fake = fake

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - KServe's name
        del request, context
        return service_pb2.ModelReadyResponse(ready=self._fake.ready)

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802 - KServe's name
        del context
        async for request in requests:
            self._fake.requests.append(request)
            try:
                for say in self._fake.script:
                    if say.hang:
                        await asyncio.Event().wait()
                    yield _response(request, say)
            except asyncio.CancelledError:
                self._fake.cancelled.set()
                raise


def _response(request: Any, say: Say) -> Any:
    if say.error:
        return service_pb2.ModelStreamInferResponse(error_message=say.error)
    response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
    response.parameters["triton_final_response"].bool_param = say.final
    if not say.final or say.text:
        text = say.text.encode()
        for name, datatype, raw in (
            ("text_output", "BYTES", struct.pack("<I", len(text)) + text),
            ("num_input_tokens", "INT32", struct.pack("<i", say.input_tokens)),
            ("num_output_tokens", "INT32", struct.pack("<i", say.output_tokens)),
        ):
            response.outputs.add(name=name, datatype=datatype, shape=[1, 1])
            response.raw_output_contents.append(raw)
    return service_pb2.ModelStreamInferResponse(infer_response=response)
