"""Guards one answer by its target's limits: the pieces pass as they are, until one of them is late."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

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


class DeadlinePassed(UpstreamTimeout):
    """The caller waits no longer: no fault of the target, and no reason to ask another one."""

    def __init__(self) -> None:
        super().__init__("the caller's deadline passed")


class Guard:
    """Watches over one attempt, from now on.

    Args:
        attempt: notes what arrives.
        deadline_s: when the caller waits no longer, on the monotonic clock.
        streams: the answer comes token by token; otherwise its first token is its last and only the total limit counts.
    """

    def __init__(
        self, attempt: Attempt, limits: Limits, clock: Clock, deadline_s: float, *, streams: bool
    ) -> None:
        self._attempt = attempt
        self._clock = clock
        self._limits = limits
        self._deadline_s = deadline_s
        now_s = clock.monotonic()
        self._total_s = now_s + limits.total.total_seconds()
        # Counted from the beginning: a provider's signs of life are not tokens.
        self._first_s = now_s + limits.first_token.total_seconds() if streams else math.inf
        self._inter_s = limits.inter_token.total_seconds() if streams else math.inf
        self._next_s = math.inf

    async def guarded(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        """The pieces up to the finished one; `pieces` is closed at the end.

        Raises:
            UpstreamTimeout: the first token, or the whole, took too long.
            UpstreamStalled: silent for too long in mid-answer; a piece with nothing in it counts as life.
            UpstreamTruncated: the answer ended before it was whole.
            UpstreamError: it ended before its first token.
            DeadlinePassed: the caller's deadline passed.
        """
        async with aclosing(pieces):
            while True:
                try:
                    async with asyncio.timeout(self._left_s()):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    raise self._ended_early() from None
                except TimeoutError:
                    raise self._too_late() from None
                if piece.text or piece.bodies or piece.usage is not None:
                    self._attempt.arrived(piece.text, len(piece.bodies), piece.usage, self._clock.monotonic())
                yield piece
                if piece.finished:
                    await _read_out(pieces)
                    return

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
