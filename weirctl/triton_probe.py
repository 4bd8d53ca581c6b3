"""Watches the local Triton from beside it: is it ready, does each model really answer, and mending it when not.

Triton's own health endpoints stay green while a dead Python stub fails every request (server issue 8604), so the only
proof of life is an answer.
"""

import asyncio
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from weirctl.triton_server import CONTROL_HEADER, close_shared_memory
from weirctl.triton_settings import MINILM, TritonSettings

# The texts are Triton's own: errors arrive in-band without a code.
_MENDED_BY_RELOAD = ("is not healthy", "unknown model", "is not ready")
_QUEUE_IS_FULL = ("Exceeds maximum queue size", "Request timeout expired")
_POLL_S = 0.1
_RELOAD_LIMIT_S = 60.0


class TritonNotReady(Exception):
    """The server did not become ready in time; the text is its last answer."""


class CanaryFailed(Exception):
    """A model answered the canary with an error; the text is Triton's."""


class Health(StrEnum):
    """The state of a model that `heal` found, or brought about."""

    HEALTHY = "healthy"
    RELOADED = "reloaded"  # the model was dead and answers again
    SATURATED = (
        "saturated"  # alive, but its queue is full or the canary did not get its turn in time: let it be
    )
    DEAD = "dead"  # unreachable, or not to be mended by a reload: restart the server


@dataclass(frozen=True)
class Finding:
    """What `heal` found or did about one model, and Triton's own words for what was wrong."""

    model: str
    health: Health
    detail: str


class TritonProbe:
    """Probes one server over a channel of its own. Use as an async context manager, which closes the channel."""

    def __init__(self, settings: TritonSettings) -> None:
        self._settings = settings
        self._control = ((f"triton-grpc-protocol-{CONTROL_HEADER}", settings.control_token),)
        # Quick to try again while the server starts; retries of calls stay off, so that each probe is one request.
        options = (("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 500))
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{settings.grpc_port}", options=options)
        # tritonclient's generated stubs are untyped.
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def wait_ready(self, *, timeout_s: float) -> None:
        """Returns when the server is ready and every model has answered. Raises TritonNotReady."""
        last, deadline_s = "no answer", time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return await self._first_answers(deadline_s)
                    except grpc.aio.AioRpcError as error:
                        last = error.details() or error.code().name
                    except CanaryFailed as error:
                        last = str(error)
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise TritonNotReady(f"Triton is not ready after {timeout_s:g} s: {last}") from None

    async def _first_answers(self, deadline_s: float) -> None:
        if not (await self._stub.ServerReady(service_pb2.ServerReadyRequest())).ready:
            raise CanaryFailed("the server is not ready")
        close_shared_memory(self._settings)
        for model in self._settings.models:
            await self.canary(model, timeout_s=deadline_s - time.monotonic())

    async def canary(self, model: str, *, timeout_s: float) -> None:
        """Has a model make one token, or one vector.

        Raises CanaryFailed, or grpc.aio.AioRpcError when the server cannot be reached or is later than `timeout_s`.
        """
        call = self._stub.ModelStreamInfer(timeout=timeout_s)
        await call.write(_canary_request(model))
        await call.done_writing()
        async for answer in call:
            if answer.error_message:
                raise CanaryFailed(answer.error_message)

    async def heal(self, *, timeout_s: float = 10.0) -> tuple[Finding, ...]:
        """Sends each model the canary, and reloads the one whose stub is dead. Call it once a second or so.

        `timeout_s` bounds each canary. A busy model lets it wait, so waiting in vain counts as saturation. Returns a
        finding for each model; raises nothing.
        """
        return tuple(await asyncio.gather(*(self._heal(model, timeout_s) for model in self._settings.models)))

    async def _heal(self, model: str, timeout_s: float) -> Finding:
        finding = await self._examine(model, timeout_s)
        if finding.health is Health.DEAD and any(text in finding.detail for text in _MENDED_BY_RELOAD):
            return await self._reload(finding, timeout_s)
        return finding

    async def _examine(self, model: str, timeout_s: float) -> Finding:
        try:
            await self.canary(model, timeout_s=timeout_s)
        except grpc.aio.AioRpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            health = Health.SATURATED if late else Health.DEAD
            return Finding(model, health, error.details() or error.code().name)
        except CanaryFailed as failure:
            full = any(text in str(failure) for text in _QUEUE_IS_FULL)
            return Finding(model, Health.SATURATED if full else Health.DEAD, str(failure))
        return Finding(model, Health.HEALTHY, "")

    async def _reload(self, dead: Finding, timeout_s: float) -> Finding:
        control = {"timeout": _RELOAD_LIMIT_S, "metadata": self._control}
        unload = service_pb2.RepositoryModelUnloadRequest(model_name=dead.model)
        load = service_pb2.RepositoryModelLoadRequest(model_name=dead.model)
        try:
            # Loading alone does nothing for a model that Triton believes to be loaded and unchanged.
            await self._stub.RepositoryModelUnload(unload, **control)
            await self._stub.RepositoryModelLoad(load, **control)
        except grpc.aio.AioRpcError as error:
            return Finding(dead.model, Health.DEAD, f"{dead.detail} Reload: {error.details()}")
        close_shared_memory(self._settings)
        after = await self._examine(dead.model, timeout_s)
        if after.health is Health.HEALTHY:
            return Finding(dead.model, Health.RELOADED, dead.detail)
        return after


def _canary_request(model: str) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    # Without it Triton says nothing when an answer ends empty.
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    text = "text" if model == MINILM else "text_input"
    request.inputs.add(name=text, datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(b".")
    if model != MINILM:
        request.inputs.add(name="max_tokens", datatype="INT32", shape=[1, 1]).contents.int_contents.append(1)
    return request
