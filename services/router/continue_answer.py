"""Goes on with an answer that broke off after its first token: what the client has, and how another target takes over.

First by prefill: the target is sent the conversation with the text so far and goes on from there. Else by replay: it is
asked afresh, and as long as it repeats what was delivered nothing is sent. The moment it differs the client is told.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from enum import Enum

from dialects.request import Request
from gen.weir.type.v1 import FinishReason, Usage
from meshkit.errors import UpstreamTruncated
from services.router.domain.replay import Replay
from services.router.domain.target import TargetSpec
from services.router.ports import Piece

MAX_DELIVERED_CHARS = 1_000_000
"""A longer answer is not continued: its text is not kept."""


class Manner(Enum):
    """How a target is asked."""

    AFRESH = "afresh"
    PREFILL = "prefill"
    REPLAY = "replay"


class Diverged(UpstreamTruncated):
    """The new answer says something else than the one that broke off."""


def best_manner(spec: TargetSpec) -> Manner:
    """The better way in which this target can take over."""
    return Manner.PREFILL if spec.capabilities.prefill else Manner.REPLAY


class Delivered:
    """What the client of one request has received so far."""

    def __init__(self, request: Request) -> None:
        self._keeps = request.can_be_continued
        self._texts: list[str] = []
        self._chars = 0
        self._tool_call = False
        self._legs: Usage | None = None
        self.begun = False
        """True once anything was delivered."""

    @property
    def text(self) -> str:
        """Its text."""
        return "".join(self._texts)

    @property
    def can_go_on(self) -> bool:
        """Whether another target may go on with it."""
        return self._keeps and not self._tool_call

    def note(self, piece: Piece) -> None:
        """Notes a piece that is delivered."""
        self.begun = self.begun or bool(piece.text or piece.bodies or piece.tool_calls or piece.finished)
        if piece.tool_call_begun or piece.tool_calls:
            self._tool_call = True
        if not piece.text or not self._keeps:
            return
        self._chars += len(piece.text)
        self._texts.append(piece.text)
        if self._chars > MAX_DELIVERED_CHARS:
            self._keeps = False
            self._texts.clear()

    def leg_ended(self, usage: Usage, manner: Manner) -> None:
        """Notes what the attempt used that just broke off. A replay may have broken off earlier than the original."""
        legs = self.usage(usage, manner)
        if self._legs is None or legs.output_tokens > self._legs.output_tokens:
            self._legs = legs

    def usage(self, usage: Usage, manner: Manner) -> Usage:
        """What the client received, with the present attempt's own usage.

        A prefilled answer is a part, and a replayed one the whole; the prompt counts once.
        """
        before = self._legs
        if before is None or manner is not Manner.PREFILL:
            return usage
        return replace(
            usage,
            input_tokens=before.input_tokens,
            cached_input_tokens=before.cached_input_tokens,
            output_tokens=before.output_tokens + usage.output_tokens,
            estimated=usage.estimated or before.estimated,
        )


async def continued(
    pieces: AsyncGenerator[Piece, None], manner: Manner, delivered: str
) -> AsyncGenerator[Piece, None]:
    """The rest of an answer as text without bodies; `pieces` is closed at the end.

    Args:
        pieces: of the target that takes over, asked in this manner.
        manner: PREFILL or REPLAY.
        delivered: the text so far.

    Raises:
        Diverged: the answer differs, calls a tool, or is shorter than what was delivered.
    """
    replay = Replay("" if manner is Manner.PREFILL else delivered)
    finish = FinishReason.UNSPECIFIED
    async with aclosing(pieces):
        async for piece in pieces:
            finish = piece.finish_reason or finish
            text = replay.feed(piece.text)
            if (
                replay.diverged
                or piece.tool_call_begun
                or piece.tool_calls
                or (piece.finished and not replay.caught_up)
            ):
                raise Diverged("the answer broke off, and the next target's differs from what was sent")
            if text or piece.finished or piece.usage is not None:
                yield Piece(
                    text=text,
                    content=True,
                    usage=piece.usage,
                    finished=piece.finished,
                    finish_reason=finish if piece.finished else FinishReason.UNSPECIFIED,
                )
