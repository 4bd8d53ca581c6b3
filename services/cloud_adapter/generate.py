"""CloudAdapter/Generate: asks one provider once and passes on what arrives, read once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from gen.weir.cloud.v1 import GenerateRequest, GenerateResponse
from services.cloud_adapter.attempt import Attempt, usable
from services.cloud_adapter.forms import Form, form_for
from services.cloud_adapter.ports import Limits, Provider, ProviderAnswer, Question
from services.cloud_adapter.read_stream import StreamReader
from services.cloud_adapter.read_whole import WholeReader
from services.cloud_adapter.reading import Reader

_EVENT_STREAM = "text/event-stream"


class Generate:
    """Asks providers by name, each once."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers

    async def __call__(self, request: GenerateRequest) -> AsyncIterator[GenerateResponse]:
        """The answer as it arrives; one response for a unary one. Closing the iterator ends the HTTP request at once.

        Raises:
            NoHealthyTarget: the provider is not configured, or cannot be used.
            UpstreamTruncated: the answer broke after text or a tool call was passed on.
            WeirError: whatever else the provider did; see failure.py.
        """
        provider = usable(self._providers, request.provider)
        form = form_for(request.endpoint, hide_usage=request.hide_stream_usage)
        question = Question(
            form.resource, request.body, request.stream, request.request_id, request.connect_timeout
        )
        attempt = Attempt(request.provider, provider, question)
        async with attempt.answer() as answer:
            reader = _reader(form, provider.limits, answer, stream=request.stream)
            while not reader.finished:
                response = reader.take(await attempt.arrived(answer, delivered=reader.delivered))
                if response is not None:
                    yield response
                if reader.failure is not None:
                    raise attempt.failed(answer, reader.failure, delivered=reader.delivered)
            await answer.release()


def _reader(form: Form, limits: Limits, answer: ProviderAnswer, *, stream: bool) -> Reader:
    if stream and answer.content_type == _EVENT_STREAM:
        return StreamReader(limits.max_event_bytes, form)
    return WholeReader(limits.max_answer_bytes, form, stream_expected=stream)
