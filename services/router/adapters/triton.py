"""Our own model behind NVIDIA Triton: KServe v2 over gRPC, one stream per request on a shared channel.

tritonclient's raw stubs are used, not its client: that one hides the final marker and cannot multiplex.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import grpc

from dialects import chat_template
from dialects.chat_template import TemplateName
from dialects.chat_tools import offered
from dialects.request import Endpoint, Request
from dialects.tool_calls import LocalToolCalls
from gen.weir.type.v1 import ResponseFormat, Sampling
from meshkit.errors import UnsupportedParameter, WeirError
from services.router.adapters.triton_errors import in_band, out_of_band
from services.router.adapters.triton_model import TritonModel
from services.router.adapters.triton_profile import ANY_OBJECT, Ask, TrtllmBls
from services.router.adapters.triton_seam import Seam
from services.router.domain.estimate import tokens_of
from services.router.domain.target import TargetSpec
from services.router.ports import Piece


class TritonTarget(TritonModel):
    """One generating model of a Triton server (services.router.ports.Target).

    Args:
        channel: to the server; owned by the bootstrap.
        template: the model's chat template; tells its convention for tool calls, too.
        probe_every: how often readiness is asked for.
        random_bytes: makes so many, for ids of tool calls.
    """

    def __init__(
        self,
        spec: TargetSpec,
        channel: grpc.aio.Channel,
        template: TemplateName,
        probe_every: timedelta,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        super().__init__(spec, channel, probe_every)
        self._template = template
        self._random_bytes = random_bytes

    async def generate(
        self, request: Request, request_id: str, *, stream: bool, prefill: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """The answer's text as it is made; `stream` changes nothing, a local answer always streams to here.

        A conversation passes the model's chat template, which breaks control tokens in it. The prompt of a raw
        completion is sent as it is: it is the caller's own, and control tokens in it work.
        """
        del stream
        chat = request.chat or request
        profile = TrtllmBls(self._ask(chat, request_id, prefill))
        calls = self._tool_calls(chat, goes_on=bool(prefill))
        call = self._stub.ModelStreamInfer(
            _one(profile.infer_request()), timeout=self._spec.limits.total.total_seconds()
        )
        try:
            async for message in call:
                if message.error_message:
                    raise self._noted(in_band(self._spec.name, message.error_message))
                self._readiness.answered()
                piece = profile.read(message.infer_response)
                yield piece if calls is None else _with_calls(calls, piece)
        except grpc.aio.AioRpcError as error:
            raise self._noted(out_of_band(self._spec.name, error)) from error
        finally:
            call.cancel()

    def _ask(self, chat: Request, request_id: str, prefill: str) -> Ask:
        seam = Seam(prefill)
        sampling = chat.typed.sampling
        cap = chat.max_output_tokens or self._spec.default_max_output_tokens
        return Ask(
            model=self._spec.target.model,
            request_id=request_id,
            prompt=self._prompt(chat, seam.sent),
            seam=seam,
            sampling=Sampling() if sampling is None else sampling,
            guide=_guide(chat.typed.response_format),
            # The cap is of the whole answer, and what there is of it was counted by another model.
            max_tokens=max(1, cap - tokens_of(len(prefill.encode()))),
            context_window=self._spec.capabilities.context_window,
        )

    def _prompt(self, chat: Request, begun: str) -> str:
        if chat.endpoint is Endpoint.CHAT_COMPLETIONS:
            return chat_template.apply(self._template, chat.typed.messages, begun, offered(chat.typed))
        if chat.prompt is None:
            name = "input" if chat.endpoint is Endpoint.RESPONSES else "prompt"
            raise UnsupportedParameter(f"{self._spec.name}: no text to continue", param=name)
        return chat.prompt + begun

    def _tool_calls(self, chat: Request, *, goes_on: bool) -> LocalToolCalls | None:
        tools = offered(chat.typed)
        if not tools or chat.endpoint is not Endpoint.CHAT_COMPLETIONS:
            return None
        parallel = chat.typed.parallel_tool_calls is not False
        return LocalToolCalls(self._template, tools, self._random_bytes, parallel=parallel, goes_on=goes_on)

    def _noted(self, error: WeirError) -> WeirError:
        self._readiness.failed(error)
        return error


def _with_calls(calls: LocalToolCalls, piece: Piece) -> Piece:
    """The piece without what is held back as part of a call. What arrived arrived, though: `content` stays.

    A call may be longer than the first token's limit.
    """
    return calls.read(piece)


def _guide(form: ResponseFormat | None) -> str | None:
    """The JSON schema that the answer must follow; None where it is free."""
    if form is None:
        return None
    return ANY_OBJECT if form.json_schema is None else form.json_schema.schema or ANY_OBJECT


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request
