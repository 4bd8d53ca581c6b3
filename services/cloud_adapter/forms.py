"""The forms that answers have: for each of OpenAI's endpoints, where it is asked and how its answers are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dialects.embedding_reading import read_embeddings
from dialects.openai_answer import read_answer
from dialects.provider_body import AnswerBody
from dialects.responses_reading import ResponsesReading
from gen.weir.cloud.v1 import Endpoint
from meshkit.errors import InvalidRequest
from services.cloud_adapter.ports import Resource


@dataclass(frozen=True, slots=True)
class Form:
    """How one answer is read; made anew for each."""

    what: str
    """What the answer is, to follow `no`."""
    resource: Resource
    read_event: Callable[[bytes], AnswerBody]
    """Reads the data of one event of a stream. Raises MalformedAnswerError."""
    read_whole: Callable[[bytes], AnswerBody]
    """Reads an answer that is no stream. Raises MalformedAnswerError."""
    done_ends: bool = True
    """`[DONE]` or the clean end of the stream ends an answer; otherwise only an event that says so."""


def form_for(endpoint: Endpoint, *, hide_usage: bool = False) -> Form:
    """The form of one answer. Raises InvalidRequest for an endpoint that is not known here.

    Args:
        endpoint: what was asked for.
        hide_usage: as GenerateRequest.hide_stream_usage.
    """
    read_event = partial(read_answer, hide_stream_usage=hide_usage)
    match endpoint:
        case Endpoint.UNSPECIFIED | Endpoint.CHAT_COMPLETIONS:
            return Form("chat completion", Resource.CHAT_COMPLETIONS, read_event, read_answer)
        case Endpoint.COMPLETIONS:
            return Form("completion", Resource.COMPLETIONS, read_event, read_answer)
        case Endpoint.RESPONSES:
            reading = ResponsesReading()
            return Form(
                "response", Resource.RESPONSES, reading.read_event, reading.read_whole, done_ends=False
            )
    raise InvalidRequest(f"endpoint {int(endpoint)} is not known", param="endpoint")


def embeddings() -> Form:
    """The form of embeddings, which are never streamed."""
    return Form("list of embeddings", Resource.EMBEDDINGS, read_embeddings, read_embeddings)
