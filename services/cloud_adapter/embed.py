"""CloudAdapter/Embed: asks one provider once for embeddings and passes them on."""

from __future__ import annotations

from collections.abc import Mapping

from gen.weir.cloud.v1 import EmbedRequest, EmbedResponse, GenerateResponse
from services.cloud_adapter.attempt import Attempt, usable
from services.cloud_adapter.forms import embeddings
from services.cloud_adapter.ports import Provider, ProviderAnswer, Question
from services.cloud_adapter.read_whole import WholeReader


class Embed:
    """Asks providers by name, each once."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers

    async def __call__(self, request: EmbedRequest) -> EmbedResponse:
        """The vectors as the provider sent them.

        Raises:
            NoHealthyTarget: the provider is not configured, or cannot be used.
            WeirError: whatever else the provider did; see failure.py.
        """
        provider, form = usable(self._providers, request.provider), embeddings()
        question = Question(
            form.resource,
            request.body,
            stream=False,
            request_id=request.request_id,
            connect_timeout=request.connect_timeout,
        )
        attempt = Attempt(request.provider, provider, question)
        async with attempt.answer() as answer:
            reader = WholeReader(provider.limits.max_answer_bytes, form)
            read = await _read(attempt, answer, reader)
        return EmbedResponse(body=read.bodies[0], usage=read.usage, model=read.model)


async def _read(attempt: Attempt, answer: ProviderAnswer, reader: WholeReader) -> GenerateResponse:
    response: GenerateResponse | None = None
    while response is None:
        response = reader.take(await attempt.arrived(answer, delivered=False))
        if reader.failure is not None:
            raise attempt.failed(answer, reader.failure, delivered=False)
    return response
