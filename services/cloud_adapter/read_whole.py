"""Reads one answer that is no stream."""

from __future__ import annotations

from dialects.provider_body import AnswerBody, MalformedAnswerError
from gen.weir.cloud.v1 import GenerateResponse
from services.cloud_adapter.forms import Form
from services.cloud_adapter.reading import Failure


class WholeReader:
    """Collects the body and reads it at its end (services.cloud_adapter.reading.Reader).

    Args:
        max_answer_bytes: most bytes that the body may have.
        form: how it is read.
        stream_expected: a stream was asked for, so that only an error can be right.
    """

    def __init__(self, max_answer_bytes: int, form: Form, *, stream_expected: bool = False) -> None:
        self._max_answer_bytes = max_answer_bytes
        self._form = form
        self._stream_expected = stream_expected
        self._body = bytearray()
        self.finished = False
        self.failure: Failure | None = None
        self.delivered = False

    def take(self, piece: bytes) -> GenerateResponse | None:
        """Nothing until the end, then the one response."""
        self._body += piece
        if len(self._body) > self._max_answer_bytes:
            self.failure = Failure(f"sent more than {self._max_answer_bytes} bytes")
        elif not piece:
            return self._read()
        return None

    def _read(self) -> GenerateResponse | None:
        try:
            answer = self._form.read_whole(bytes(self._body))
        except MalformedAnswerError:
            self.failure = Failure(
                f"sent what is no {self._form.what}" if self._body else "sent an empty body"
            )
            return None
        self.failure = self._fault_of(answer)
        if self.failure is not None:
            return None
        self.finished = True
        return GenerateResponse(
            bodies=[answer.passed_on],
            text=answer.text,
            tool_call_begun=answer.tool_call,
            tool_calls=list(answer.tool_calls),
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            model=answer.model,
            content=True,
            finished=True,
        )

    def _fault_of(self, answer: AnswerBody) -> Failure | None:
        if answer.fault is not None:
            return Failure("sent an error in place of an answer", answer.fault)
        if self._stream_expected:
            return Failure("was asked for a stream and sent none")
        return None if answer.choices else Failure("sent an answer with nothing in it")
