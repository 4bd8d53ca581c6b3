"""CloudAdapter/Generate: asks one provider once and passes on what arrives, read once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import msgspec

from dialects.openai_fault import Fault, read_fault
from gen.weir.cloud.v1 import GenerateRequest, GenerateResponse
from meshkit.errors import NoHealthyTarget, WeirError
from services.cloud_adapter import failure
from services.cloud_adapter.ports import (
    AnswerCutError,
    ChatProvider,
    ProviderAnswer,
    Question,
    RefusedError,
    UnreachableError,
)
from services.cloud_adapter.read_stream import StreamReader
from services.cloud_adapter.read_whole import WholeReader
from services.cloud_adapter.reading import Failure, Reader

_EVENT_STREAM = "text/event-stream"
_NO_FAULT = Fault("")


class Generate:
    """Asks providers by name, each once."""

    def __init__(self, providers: Mapping[str, ChatProvider]) -> None:
        self._providers = providers

    async def __call__(self, request: GenerateRequest) -> AsyncIterator[GenerateResponse]:
        """The answer as it arrives; one response for a unary one. Closing the iterator ends the HTTP request at once.

        Raises:
            NoHealthyTarget: the provider is not configured, or cannot be used.
            UpstreamTruncated: the answer broke after text or a tool call was passed on.
            WeirError: whatever else the provider did; see failure.py.
        """
        provider = self._usable(request.provider)
        question = Question(request.body, request.stream, request.request_id, request.connect_timeout)
        try:
            async with provider.ask(question) as answer:
                reader = _reader(provider, request, answer)
                while not reader.finished:
                    response = reader.take(await _arrived(request, answer, reader))
                    if response is not None:
                        yield response
                    if reader.failure is not None:
                        raise _failed(provider, request, answer, reader.failure, delivered=reader.delivered)
                await answer.release()
        except UnreachableError as error:
            raise failure.unreachable(request.provider, error) from error
        except RefusedError as error:
            fault = _redacted(provider, read_fault(error.body))
            raise failure.refused(
                request.provider, _model(request), fault, error.status, error.retry_after
            ) from error

    def _usable(self, name: str) -> ChatProvider:
        provider = self._providers.get(name)
        if provider is None:
            raise NoHealthyTarget(f"no provider {name!r} is configured")
        if not provider.listing.usable:
            raise NoHealthyTarget(f"provider {name!r} cannot be used: {provider.listing.problem}")
        return provider


def _reader(provider: ChatProvider, request: GenerateRequest, answer: ProviderAnswer) -> Reader:
    limits = provider.limits
    if request.stream and answer.content_type == _EVENT_STREAM:
        return StreamReader(limits.max_event_bytes, hide_usage=request.hide_stream_usage)
    return WholeReader(limits.max_answer_bytes, stream_expected=request.stream)


async def _arrived(request: GenerateRequest, answer: ProviderAnswer, reader: Reader) -> bytes:
    try:
        return await answer.read()
    except AnswerCutError as error:
        text = f"broke off its answer: {error.text}"
        raise failure.broken(
            request.provider, text, _NO_FAULT, answer.status, delivered=reader.delivered
        ) from error


def _failed(
    provider: ChatProvider,
    request: GenerateRequest,
    answer: ProviderAnswer,
    what: Failure,
    *,
    delivered: bool,
) -> WeirError:
    fault = _redacted(provider, what.fault or _NO_FAULT)
    if what.fault is not None and not delivered:
        return failure.refused(request.provider, _model(request), fault, None)
    return failure.broken(request.provider, what.text, fault, answer.status, delivered=delivered)


def _redacted(provider: ChatProvider, fault: Fault) -> Fault:
    return fault._replace(
        message=provider.redact(fault.message),
        kind=provider.redact(fault.kind),
        code=provider.redact(fault.code),
        param=None if fault.param is None else provider.redact(fault.param),
    )


def _model(request: GenerateRequest) -> str:
    """The model that the body names, for an error's text."""
    try:
        model = msgspec.json.decode(request.body, type=dict[str, msgspec.Raw]).get("model")
        return "" if model is None else msgspec.json.decode(model, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
