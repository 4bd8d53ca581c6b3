"""Answers in OpenAI's format: one JSON object, or SSE events that end in `data: [DONE]`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta

from dialects import chat_answer
from dialects.chat_answer import AnswerHead
from dialects.chat_request import ChatRequest, read
from gen.weir.type.v1 import FinishReason, Locality, Principal, Usage
from meshkit.errors import InternalFault, WeirError, openai_error_json
from services.router.answer import Answer
from services.router.domain.attempt import Attempt
from services.router.ports import Piece


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes for the client. The first part of an answer also carries its content type and attempt."""

    data: bytes
    content_type: str = ""
    attempt: Attempt | None = None


class ChatCompletions:
    """POST /v1/chat/completions."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def chat_completions(
        self, body: bytes, principal: Principal, request_id: str, patience: timedelta | None = None
    ) -> AsyncGenerator[Part, None]:
        """The answer in parts. Errors before the first part are raised; later ones become an SSE error event.

        `patience` is how long the caller waits; None means without limit.
        """
        request = read(body)
        pieces = self._answer.answer(request, principal, request_id, patience)
        parts = self._stream(request, pieces) if request.stream else self._whole(pieces)
        async with aclosing(parts):
            async for part in parts:
                yield part

    async def _stream(
        self, request: ChatRequest, pieces: AsyncGenerator[tuple[Attempt, Piece], None]
    ) -> AsyncGenerator[Part, None]:
        begun = False
        async with aclosing(pieces):
            try:
                renderer: _Events | None = None
                async for attempt, piece in pieces:
                    if renderer is None or renderer.attempt is not attempt:
                        renderer = _Events(attempt, include_usage=request.include_usage)
                    data = renderer.render(piece)
                    if data:
                        yield Part(data) if begun else Part(data, chat_answer.SSE_TYPE, attempt)
                        begun = True
            except Exception as error:
                if not begun:
                    raise
                known = error if isinstance(error, WeirError) else InternalFault("internal error")
                # Without a finish_reason and without [DONE]: nobody shall take this for a whole answer.
                yield Part(chat_answer.sse([openai_error_json(known).encode("ascii")]))
                if known is not error:
                    raise  # to the log

    async def _whole(self, pieces: AsyncGenerator[tuple[Attempt, Piece], None]) -> AsyncGenerator[Part, None]:
        current: Attempt | None = None
        answer = _Whole()
        async with aclosing(pieces):
            async for attempt, piece in pieces:
                if attempt is not current:
                    current, answer = attempt, _Whole()
                answer.add(piece)
        if current is not None:
            yield Part(answer.render(current), chat_answer.JSON_TYPE, current)


class _Events:
    """Renders one attempt's pieces as SSE."""

    def __init__(self, attempt: Attempt, *, include_usage: bool) -> None:
        self.attempt = attempt
        self._head = _head(attempt)
        self._include_usage = include_usage
        self._first = True

    def render(self, piece: Piece) -> bytes:
        """The events of one piece; `[DONE]` after the finished one."""
        if piece.bodies:
            bodies = [chat_answer.with_provider(body, self._head.provider) for body in piece.bodies]
        elif self.attempt.target.locality == Locality.LOCAL:
            bodies = self._own(piece)
        else:
            bodies = []
        done = chat_answer.DONE_EVENT if piece.finished else b""
        return chat_answer.sse(bodies) + done

    def _own(self, piece: Piece) -> list[bytes]:
        bodies = []
        if piece.text or (self._first and piece.finished):
            bodies.append(chat_answer.delta_chunk(self._head, piece.text, first=self._first))
            self._first = False
        if piece.finished:
            bodies.append(chat_answer.finish_chunk(self._head, piece.finish_reason))
            if self._include_usage:
                bodies.append(chat_answer.usage_chunk(self._head, self.attempt.usage()))
        return bodies


class _Whole:
    """Collects one attempt's pieces into one object."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._body: bytes | None = None
        self._finish = FinishReason.UNSPECIFIED

    def add(self, piece: Piece) -> None:
        self._texts.append(piece.text)
        if piece.bodies:
            self._body = piece.bodies[-1]
        if piece.finish_reason:
            self._finish = piece.finish_reason

    def render(self, attempt: Attempt) -> bytes:
        head = _head(attempt)
        if self._body is not None:
            return chat_answer.with_provider(self._body, head.provider)
        usage: Usage = attempt.usage()
        return chat_answer.completion(head, "".join(self._texts), self._finish, usage)


def _head(attempt: Attempt) -> AnswerHead:
    return AnswerHead(
        id=f"chatcmpl-{attempt.entry_id.hex}",
        created_s=int(attempt.begun_at.timestamp()),
        model=attempt.target.model,
        provider="local" if attempt.target.locality == Locality.LOCAL else "cloud",
    )
