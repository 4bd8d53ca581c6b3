"""One attempt at one target: what is known of it while it runs, and its two entries in the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from gen.weir.ledger.v1 import Entry, Outcome
from gen.weir.type.v1 import Principal, Target, Usage
from services.router.domain.estimate import BYTES_PER_TOKEN, estimated_usage, tokens_of


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked what: the same for every attempt of a request."""

    request_id: str
    principal: Principal
    model: str
    """As the client named it, after the default was applied."""
    prompt_bytes: int
    patience: timedelta | None = None
    """How long the caller waits; None means without limit."""
    ended: Callable[[Usage], None] | None = None
    """Is told what each attempt used when it ends."""


class Attempt:
    """Collects what an attempt used. Times are monotonic seconds; entries carry wall time."""

    def __init__(
        self,
        asked: Asked,
        number: int,
        target: Target,
        reason: str,
        entry_id: UUID,
        begun_at: datetime,
        begun_s: float,
        reserved_output_tokens: int,
    ) -> None:
        self.entry_id = entry_id
        """The ledger's name for this attempt."""
        self.number = number
        """From 1, within the request."""
        self.target = target
        self.reason = reason
        self._asked = asked
        self._begun_at = begun_at
        self._begun_s = begun_s
        self._first_s: float | None = None
        self._usage: Usage | None = None
        self._answer_bytes = 0
        self._entry = Entry(
            entry_id=entry_id.bytes,
            # PostgreSQL keeps microseconds; the key must come back from there unchanged.
            begun_at=begun_at,
            request_id=asked.request_id,
            attempt=number,
            principal=asked.principal,
            model_asked=asked.model,
            target=target,
            route_reason=reason,
            usage=estimated_usage(asked.prompt_bytes, reserved_output_tokens),
        )

    @property
    def request_id(self) -> str:
        """The label of the request."""
        return self._asked.request_id

    @property
    def begun_at(self) -> datetime:
        """Wall time of the beginning."""
        return self._begun_at

    @property
    def has_first_token(self) -> bool:
        """Whether anything of an answer arrived."""
        return self._first_s is not None

    def begun(self) -> Entry:
        """The entry to store before the first byte goes upstream: its usage is the reservation."""
        return self._entry

    def arrived(self, text: str, chunks: int, now_s: float) -> None:
        """Notes a piece of the answer: its text, and how many of the provider's chunks it is of."""
        if self._first_s is None:
            self._first_s = now_s
        self._answer_bytes += len(text.encode()) if text else chunks * BYTES_PER_TOKEN

    def used(self, usage: Usage) -> None:
        """Notes what the target says that it used so far."""
        self._usage = usage

    @property
    def first_token_s(self) -> float | None:
        """Seconds from the beginning to the first token; None before it."""
        return None if self._first_s is None else self._first_s - self._begun_s

    def usage(self) -> Usage:
        """What the target said it used, else an estimate; nothing for a failure before the first token."""
        if self._usage is not None:
            return self._usage
        if self._first_s is None:
            return Usage()
        return estimated_usage(self._asked.prompt_bytes, tokens_of(self._answer_bytes))

    def ended(self, outcome: Outcome, error_reason: str, now_s: float) -> Entry:
        """The terminal entry."""
        begun = self._entry
        return Entry(
            entry_id=begun.entry_id,
            begun_at=begun.begun_at,
            request_id=begun.request_id,
            attempt=begun.attempt,
            principal=begun.principal,
            model_asked=begun.model_asked,
            target=begun.target,
            route_reason=begun.route_reason,
            outcome=outcome,
            error_reason=error_reason,
            usage=self.usage(),
            latency=timedelta(seconds=now_s - self._begun_s),
            first_token=None if self._first_s is None else timedelta(seconds=self._first_s - self._begun_s),
        )
