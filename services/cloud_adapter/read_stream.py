"""Reads one streamed answer: events to responses, and the judgement whether it is whole."""

from __future__ import annotations

from collections.abc import Iterable

from dialects.openai_fault import Fault
from dialects.provider_body import AnswerBody, MalformedAnswerError
from dialects.sse import DONE, EventTooLargeError, SseEvent, SseSplitter
from gen.weir.cloud.v1 import GenerateResponse
from gen.weir.type.v1 import FinishReason
from services.cloud_adapter.forms import Form
from services.cloud_adapter.reading import Failure

_ERROR_EVENT = b"error"


class StreamReader:
    """Reads one stream (services.cloud_adapter.reading.Reader).

    The stream is whole where an event says so; in forms that have no such event, where the provider says `[DONE]`, or
    ends the stream cleanly after every choice in it was ended. A response without anything in it is a sign of life: a
    comment arrived.

    Args:
        max_event_bytes: limit of one event.
        form: how events are read.
    """

    def __init__(self, max_event_bytes: int, form: Form) -> None:
        self._splitter = SseSplitter(max_event_bytes)
        self._form = form
        self._lives_seen = 0
        self._model_named = False
        self._tool_call_begun = False
        self._any_choice = False
        self._open_choices: set[int] = set()
        self.finished = False
        self.failure: Failure | None = None
        self.delivered = False

    def take(self, piece: bytes) -> GenerateResponse | None:
        """What one read brought."""
        try:
            events = self._splitter.feed(piece) if piece else self._splitter.end()
        except EventTooLargeError as error:
            self.failure = Failure(f"sent too much at once: {error}")
            return None
        lives, self._lives_seen = self._lives_seen, self._splitter.signs_of_life
        response = self._response(events) if events or lives < self._lives_seen else None
        if events and self.failure is not None and response == GenerateResponse():
            response = None  # nothing came before the failure
        return response if piece else self._at_end(response)

    def _at_end(self, response: GenerateResponse | None) -> GenerateResponse | None:
        if self.finished or self.failure is not None:
            return response
        if not self._any_choice or self._open_choices or not self._form.done_ends:
            self.failure = Failure("ended the stream before the answer was complete")
            return response
        self.finished = True
        response = response or GenerateResponse(tool_call_begun=self._tool_call_begun)
        response.finished = True
        return response

    def _response(self, events: Iterable[SseEvent]) -> GenerateResponse:
        response = GenerateResponse()
        texts: list[str] = []
        for event in events:
            if event.data == DONE:
                self._done()
            else:
                self._read(event, response, texts)
            if self.finished or self.failure is not None:
                break
        response.text = "".join(texts)
        response.tool_call_begun = self._tool_call_begun
        response.finished = self.finished
        self.delivered = self.delivered or bool(texts) or self._tool_call_begun
        return response

    def _done(self) -> None:
        if not self._form.done_ends:
            return  # its own last event is still awaited
        self.finished = self._any_choice
        if not self.finished:
            self.failure = Failure("sent a stream without an answer")

    def _read(self, event: SseEvent, response: GenerateResponse, texts: list[str]) -> None:
        try:
            body = self._form.read_event(event.data)
        except MalformedAnswerError:
            response.malformed_events += 1
            return
        if body.fault is not None or event.name == _ERROR_EVENT:
            self.failure = Failure("sent an error in its stream", body.fault or Fault(""))
            return
        if body.text:
            texts.append(body.text)
        self._note(body, response)

    def _note(self, body: AnswerBody, response: GenerateResponse) -> None:
        if body.passed_on:
            response.bodies.append(body.passed_on)
        if body.content:
            response.content = True
        if body.tool_calls:
            response.tool_calls.extend(body.tool_calls)
        if body.usage is not None:
            response.usage = body.usage
        if body.finish_reason is not FinishReason.UNSPECIFIED:
            response.finish_reason = body.finish_reason
        if body.model and not self._model_named:
            response.model = body.model
            self._model_named = True
        if body.tool_call:
            self._tool_call_begun = True
        if body.terminal:
            self.finished = True
        if body.choices:
            self._any_choice = True
            self._open_choices.update(body.choices)
            self._open_choices.difference_update(body.ended_choices)
