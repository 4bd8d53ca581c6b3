"""Reads one answer that is no stream."""

from __future__ import annotations

from dialects.openai_answer import MalformedAnswerError, read_answer
from gen.weir.cloud.v1 import GenerateResponse
from services.cloud_adapter.reading import Failure


class WholeReader:
    """Collects the body and reads it at its end (services.cloud_adapter.reading.Reader).

    Args:
        max_answer_bytes: most bytes that the body may have.
        stream_expected: a stream was asked for, so that only an error can be right.
    """

    def __init__(self, max_answer_bytes: int, *, stream_expected: bool = False) -> None:
        self._max_answer_bytes = max_answer_bytes
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
            answer = read_answer(bytes(self._body))
        except MalformedAnswerError:
            self.failure = Failure("sent what is no chat completion" if self._body else "sent an empty body")
            return None
        if answer.fault is not None:
            self.failure = Failure("sent an error in place of an answer", answer.fault)
        elif self._stream_expected:
            self.failure = Failure("was asked for a stream and sent none")
        elif not answer.choices:
            self.failure = Failure("sent an answer without choices")
        else:
            self.finished = True
            return GenerateResponse(
                bodies=[answer.passed_on],
                text=answer.text,
                tool_call_begun=answer.tool_call,
                finish_reason=answer.finish_reason,
                usage=answer.usage,
                model=answer.model,
                finished=True,
            )
        return None
