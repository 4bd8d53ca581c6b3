"""What the use cases need of a provider, in their own words."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from gen.weir.cloud.v1 import Provider as Listing


class Resource(StrEnum):
    """What can be asked for: OpenAI's paths, below the address of a provider."""

    CHAT_COMPLETIONS = "chat/completions"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Question:
    """One request to be sent."""

    resource: Resource
    body: bytes
    """The JSON object, sent as it is."""
    stream: bool
    request_id: str
    connect_timeout: timedelta | None
    """None means the provider's configured limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of an answer is read."""

    max_answer_bytes: int
    """Of an answer that is no stream."""
    max_event_bytes: int
    """Of one event of a stream."""


class UnreachableError(Exception):
    """No answer began: the connection could not be made, or broke before the answer's head.

    Args:
        text: why, fit for the caller.
        timed_out: the connect limit passed.
        sent: the request may have reached the provider, so that it may cost money.
    """

    def __init__(self, text: str, *, timed_out: bool = False, sent: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.timed_out = timed_out
        self.sent = sent


class RefusedError(Exception):
    """The provider answered with a status other than success. `body` is cut at a limit and not trusted.

    `other_key`: it refused the key, and another one can be used at once.
    """

    def __init__(
        self, status: int, body: bytes, retry_after: timedelta | None, *, other_key: bool = False
    ) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body
        self.retry_after = retry_after
        self.other_key = other_key


class AnswerCutError(Exception):
    """The connection broke within the answer, or its encoding is broken. `text` is fit for the caller."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class ProviderAnswer(Protocol):
    """A successful answer whose head is here."""

    @property
    def status(self) -> int:
        """Of HTTP, a success."""

    @property
    def content_type(self) -> str:
        """In lower case, without parameters; empty where the provider names none."""

    async def read(self) -> bytes:
        """What has arrived since the last read, at least one byte; empty at the clean end. Raises AnswerCutError."""

    async def release(self) -> None:
        """Nothing more is wanted: keeps the connection for the next question if the answer ends about now."""


class Provider(Protocol):
    """Whoever answers OpenAI-format requests."""

    @property
    def listing(self) -> Listing:
        """How it is listed."""

    @property
    def limits(self) -> Limits:
        """How much is read."""

    def redact(self, text: str) -> str:
        """The text without the provider's secrets and whatever looks like one."""

    def ask(self, question: Question) -> AbstractAsyncContextManager[ProviderAnswer]:
        """Sends a question once, without retries. Leaving the context early ends the HTTP request at once.

        Raises UnreachableError and RefusedError on entering.
        """
