"""Guards one answer by its target's limits: the pieces pass as they are, until one of them is late."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

from gen.weir.type.v1 import FinishReason
from meshkit.errors import (
    UpstreamError,
    UpstreamStalled,
    UpstreamTimeout,
    UpstreamTruncated,
    WeirError,
)
from services.router.domain.attempt import Attempt
from services.router.domain.target import Limits
from services.router.ports import Clock, Piece

READ_OUT_S = 1.0
"""How long the end of a whole answer may lag behind its last piece before its call is cancelled."""
MAX_HELD_PIECES = 256
"""Pieces without a token that may come before the first one: they are held back until it is there."""
MAX_HELD_BYTES = 1024 * 1024
"""Of those pieces together."""


class DeadlinePassed(UpstreamTimeout):
    """The caller waits no longer: no fault of the target, and no reason to ask another one."""

    def __init__(self) -> None:
        super().__init__("the caller's deadline passed")


class Guard:
    """Watches over one attempt, from now on.

    Args:
        attempt: notes what arrives.
        malformed: is told how many events of the target were skipped.
        deadline_s: when the caller waits no longer, on the monotonic clock.
        streams: the answer comes token by token; otherwise its first token is its last and only the total limit counts.
        choices: answers wanted at once.
    """

    def __init__(
        self,
        attempt: Attempt,
        limits: Limits,
        clock: Clock,
        malformed: Callable[[int], None],
        deadline_s: float,
        *,
        streams: bool,
        choices: int = 1,
    ) -> None:
        self._attempt = attempt
        self._malformed = malformed
        self._clock = clock
        self._limits = limits
        self._deadline_s = deadline_s
        now_s = clock.monotonic()
        self._total_s = now_s + limits.total.total_seconds()
        # Counted from the beginning: a provider's signs of life are not tokens.
        self._first_s = now_s + limits.first_token.total_seconds() if streams else math.inf
        self._inter_s = limits.inter_token.total_seconds() if streams else math.inf
        self._next_s = math.inf
        self._choices = choices
        self._finish = FinishReason.UNSPECIFIED
        """How the only choice ended, once its target said so."""

    async def guarded(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        """The pieces up to the finished one; `pieces` is closed at the end.

        None is given before the first token is there: until then the target may still fail, and another one begin.
        The first token is the first piece with content: text, thought, a tool call, an end. Pieces with nothing in
        them are signs of life; they count, and are not given.

        An answer that said how it ended is whole: what breaks or stalls behind that is no fault of it.

        Raises:
            UpstreamTimeout: the first token, or the whole, took too long.
            UpstreamStalled: silent for too long in mid-answer; a piece with nothing in it counts as life.
            UpstreamTruncated: the answer ended before it was whole.
            UpstreamError: it ended before its first token.
            DeadlinePassed: the caller's deadline passed.
        """
        held: list[Piece] = []
        async with aclosing(pieces):
            while True:
                piece = await self._next_or_end(pieces)
                self._note(piece)
                if not self._attempt.has_first_token:
                    self._hold(held, piece)
                    continue
                for earlier in held:
                    yield earlier
                held.clear()
                if (
                    piece.bodies
                    or piece.text
                    or piece.tool_calls
                    or piece.finished
                    or piece.usage is not None
                ):
                    yield piece
                if piece.finished:
                    await _read_out(pieces)
                    return

    async def _next_or_end(self, pieces: AsyncGenerator[Piece, None]) -> Piece:
        try:
            return await self._next(pieces)
        except (UpstreamError, UpstreamTruncated, UpstreamStalled, UpstreamTimeout) as error:
            if self._finish:
                return Piece(finished=True, finish_reason=self._finish)
            if isinstance(error, UpstreamError) and self._attempt.has_first_token:
                raise UpstreamTruncated(error.message, details=error.details) from error
            raise

    async def _next(self, pieces: AsyncGenerator[Piece, None]) -> Piece:
        try:
            async with asyncio.timeout(self._left_s()):
                return await anext(pieces)
        except StopAsyncIteration:
            raise self._ended_early() from None
        except TimeoutError:
            raise self._too_late() from None

    def _note(self, piece: Piece) -> None:
        if piece.usage is not None:
            self._attempt.used(piece.usage)
        if piece.content or piece.text or piece.finished:
            # A chunk that only says how the answer ended is no token; another one without text is one.
            tokens = 0 if piece.finish_reason and not piece.tool_calls else len(piece.bodies)
            self._attempt.arrived(piece.text, tokens, self._clock.monotonic())
        if piece.malformed_events:
            self._malformed(piece.malformed_events)
        if piece.finish_reason and self._choices == 1:
            self._finish = piece.finish_reason
        elif piece.text or piece.tool_calls:
            self._finish = FinishReason.UNSPECIFIED

    def _hold(self, held: list[Piece], piece: Piece) -> None:
        if piece.bodies:
            held.append(piece)
        size = sum(len(body) for one in held for body in one.bodies)
        if len(held) > MAX_HELD_PIECES or size > MAX_HELD_BYTES:
            raise UpstreamError(f"{self._attempt.target.name}: {len(held)} events, {size} bytes and no token")

    def _left_s(self) -> float:
        now_s = self._clock.monotonic()
        due_s = now_s + self._inter_s if self._attempt.has_first_token else self._first_s
        self._next_s = min(due_s, self._total_s, self._deadline_s)
        return self._next_s - now_s

    def _too_late(self) -> WeirError:
        name, limits = self._attempt.target.name, self._limits
        if self._next_s == self._deadline_s:
            return DeadlinePassed()
        if self._next_s == self._total_s:
            return UpstreamTimeout(f"{name}: no whole answer within {limits.total.total_seconds():g} s")
        if self._attempt.has_first_token:
            return UpstreamStalled(f"{name}: silent for {self._inter_s:g} s in mid-answer")
        return UpstreamTimeout(f"{name}: no first token within {limits.first_token.total_seconds():g} s")

    def _ended_early(self) -> WeirError:
        kind = UpstreamTruncated if self._attempt.has_first_token else UpstreamError
        return kind(f"{self._attempt.target.name}: the answer ended before it was whole")


async def _read_out(pieces: AsyncGenerator[Piece, None]) -> None:
    """Lets a whole answer end by itself, so that the connection it came on can be used again."""
    with suppress(TimeoutError, WeirError):
        async with asyncio.timeout(READ_OUT_S):
            async for _ in pieces:
                pass
