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
    """Plays `script` for every stream, and embeds. `address` is known once started."""

    script: Sequence[Say] = ()
    ready: bool = True
    silent: bool = False
    """Whether questions for readiness get no answer."""
    embed_error: tuple[grpc.StatusCode, str] | None = None
    """What embedding fails with."""
    embed_hangs: bool = False
    broken: bool = False
    """Whether embedding leaves a vector out."""
    dead: set[str] = field(default_factory=set)
    """Models whose process has died: every request fails until the model was unloaded and loaded."""
    loads: list[str] = field(default_factory=list)
    """Models that were unloaded (`-name`) and loaded (`+name`)."""
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
        await self.stop()

    async def stop(self) -> None:
        """Breaks every connection and listens no more. Once more does nothing."""
        await self._server.stop(0)

    def input(self, name: str) -> bytes | None:
        """The raw bytes of one input of the last request."""
        request = self.requests[-1]
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            if tensor.name == name:
                return bytes(raw)
        return None

    def text(self, name: str) -> str | None:
        """One string input of the last request."""
        raw = self.input(name)
        return None if raw is None else raw[4:].decode()


class _Servicer(_Base):  # type: ignore[misc]  # see _Base
    def __init__(self, fake: FakeTriton) -> None:
        self._fake = fake

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802 - KServe's name
        self._fake.loads.append(f"-{request.model_name}")
        return service_pb2.RepositoryModelUnloadResponse()

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802 - KServe's name
        self._fake.loads.append(f"+{request.model_name}")
        # As Triton does: a model that it believes to be loaded and unchanged is left as it is.
        if self._fake.loads[-2:-1] == [f"-{request.model_name}"]:
            self._fake.dead.discard(request.model_name)
        return service_pb2.RepositoryModelLoadResponse()

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - KServe's name
        del request, context
        if self._fake.silent:
            await asyncio.Event().wait()
        return service_pb2.ModelReadyResponse(ready=self._fake.ready)

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802 - KServe's name
        del context
        async for request in requests:
            self._fake.requests.append(request)
            dead = Say(error=f"Stub process '{request.model_name}_0_0' is not healthy.")
            try:
                for say in [dead] if request.model_name in self._fake.dead else self._fake.script:
                    if say.hang:
                        await asyncio.Event().wait()
                    yield _response(request, say)
            except asyncio.CancelledError:
                self._fake.cancelled.set()
                raise

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - KServe's name
        """A text's vector is its length and the number of the request that brought it; its tokens are its bytes."""
        self._fake.requests.append(request)
        if self._fake.embed_error is not None:
            await context.abort(*self._fake.embed_error)
        try:
            if self._fake.embed_hangs:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._fake.cancelled.set()
            raise
        sizes = _sizes(request.raw_input_contents[0])
        vectors = b"".join(struct.pack("<2f", size, len(self._fake.requests)) for size in sizes)
        response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        for name, datatype, width, raw in (
            ("embedding", "FP32", 2, vectors),
            (
                "num_input_tokens",
                "INT32",
                1,
                struct.pack(f"<{len(sizes)}i", *sizes)[4 if self._fake.broken else 0 :],
            ),
        ):
            response.outputs.add(name=name, datatype=datatype, shape=[len(sizes), width])
            response.raw_output_contents.append(raw)
        return response


def _sizes(raw: bytes) -> list[int]:
    sizes, at = [], 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        sizes.append(size)
        at += 4 + size
    return sizes


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
