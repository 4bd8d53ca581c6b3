"""Runs a plan: asks its targets in order until one answers, and writes down every attempt."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from dialects.rendering import Bill
from dialects.request import Endpoint, Request
from gen.weir.error.v1 import Reason
from gen.weir.ledger.v1 import Outcome
from gen.weir.router.v1 import OnCut
from meshkit.errors import InvalidRequest, UnsupportedParameter, UpstreamError, UpstreamTruncated, WeirError
from meshkit.telemetry import Logger
from pricing.price_list import PriceList
from services.router.continue_answer import Delivered, Diverged, Manner, continued
from services.router.domain.attempt import Asked, Attempt
from services.router.domain.plan import Plan
from services.router.guard import DeadlinePassed, Guard
from services.router.hedge import first_of
from services.router.metrics import RouterMetrics
from services.router.ports import AttemptLog, Clock, Piece
from services.router.retry import FAILS_OVER
from services.router.target_state import TargetState
from services.router.walk import Turn, Walk

MAX_HELD_BYTES = 20 * 1024 * 1024
"""Of an answer that is held back until it is whole."""
HELD_PIECE_BYTES = 1_024
"""About what a piece takes in memory beside its bytes."""
_CANCELLED = Reason.CANCELLED.name
_INTERNAL = Reason.INTERNAL.name


class Arrival(NamedTuple):
    """A piece of the answer on its way to the client."""

    attempt: Attempt
    """Which brought it."""
    piece: Piece
    native: bool
    """False where the piece's text is to be rendered by us: it has no bodies of the request's own endpoint."""
    bill: Bill | None
    """With usage and with the finished piece."""
    attempts: int
    """Begun so far."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Surroundings:
    """What every run needs of its process."""

    states: Mapping[str, TargetState]
    """By target name."""
    log: AttemptLog
    """Where attempts are written."""
    prices: PriceList
    clock: Clock
    new_id: Callable[[], UUID]
    """Makes entry ids (UUIDv7)."""
    draw: Callable[[], float]
    """A random number in [0, 1)."""
    metrics: RouterMetrics
    logger: Logger
    max_attempts: int
    """Of one request, over all targets."""


class RunPlan:
    """The attempt loop."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    def run(
        self, plan: Plan, asked: Asked, request: Request, on_cut: OnCut = OnCut.UNSPECIFIED
    ) -> AsyncGenerator[Arrival, None]:
        """Yields pieces of the answer with the attempt that brought them.

        Where the client takes a stream, pieces are its at once, and after the first one an answer that breaks off is
        continued or ends in an error. Otherwise nothing is given before the answer is whole. Raises the first
        target's error when none answers.
        """
        return _Run(self._around, plan, asked, request, on_cut).arrivals()


class _LegFailed(Exception):
    """One attempt failed."""

    def __init__(self, turn: Turn, error: WeirError) -> None:
        super().__init__(str(error))
        self.turn = turn
        self.error = error


class _Run:
    """One request under way."""

    def __init__(
        self, around: Surroundings, plan: Plan, asked: Asked, request: Request, on_cut: OnCut
    ) -> None:
        self._around = around
        self._asked = asked
        self._request = request
        self._on_cut = on_cut
        self._walk = Walk(plan, self._admits, around.max_attempts, around.draw)
        self._delivered = Delivered(request)
        self._cut: WeirError | None = None
        """Why the answer broke off, of which the client has a part."""
        self._spent_nano_usd: int | None = 0
        """By the attempts that ended; None where one of them has no price."""
        patience = asked.patience
        self._deadline_s = (
            math.inf if patience is None else around.clock.monotonic() + patience.total_seconds()
        )

    async def arrivals(self) -> AsyncGenerator[Arrival, None]:
        """The loop."""
        while (turn := self._walk.turn()) is not None:
            if turn.wait_s:
                await self._around.clock.sleep(turn.wait_s)
            if self._left_s() <= 0:
                raise DeadlinePassed
            try:
                async with aclosing(self._taken(turn)) as arrivals:
                    async for arrival in arrivals:
                        self._delivered.note(arrival.piece)
                        yield arrival
            except _LegFailed as failure:
                self._tell(failure)
                if self._delivered.begun:
                    self._go_on(failure.turn, failure.error)
                elif not self._walk.failed(failure.turn, failure.error, self._left_s()):
                    raise failure.error from failure
            else:
                return
        raise self._walk.exhausted(self._cut)

    def _go_on(self, turn: Turn, error: WeirError) -> None:
        """Has the next target take over. Raises what the client is told where none can."""
        if self._cut is None:
            if not (isinstance(error, FAILS_OVER) and self._may_go_on(turn)):
                raise error
            self._cut = error
        elif isinstance(error, Diverged) or not self._delivered.can_go_on:
            self._walk.note(turn, error)
            raise self._walk.exhausted(self._cut)
        refused = isinstance(error, (InvalidRequest, UnsupportedParameter))
        self._around.metrics.continued(turn.step.target.name, turn.manner.value)
        self._walk.broke_off(turn, error, refused=refused)

    def _may_go_on(self, turn: Turn) -> bool:
        return self._on_cut_of(turn) is OnCut.CONTINUE and self._delivered.can_go_on

    def _on_cut_of(self, turn: Turn) -> OnCut:
        return self._on_cut or turn.step.target.on_cut

    def _taken(self, turn: Turn) -> AsyncGenerator[Arrival, None]:
        """One turn's arrivals: as they come where the client takes them so, else when the answer is whole."""
        return self._asked_in(turn) if self._is_live(turn) else self._held(turn)

    def _is_live(self, turn: Turn) -> bool:
        return self._request.stream and self._on_cut_of(turn) is not OnCut.HOLD

    async def _held(self, turn: Turn) -> AsyncGenerator[Arrival, None]:
        held: list[Arrival] = []
        held_bytes = 0
        async with aclosing(self._asked_in(turn)) as arrivals:
            async for arrival in arrivals:
                held.append(arrival)
                held_bytes += HELD_PIECE_BYTES + sum(map(len, arrival.piece.bodies)) + len(arrival.piece.text)
                if held_bytes > MAX_HELD_BYTES:
                    raise _LegFailed(
                        turn, UpstreamTruncated(f"{turn.step.target.name}: over {MAX_HELD_BYTES} bytes")
                    )
        for arrival in held:
            yield arrival

    def _asked_in(self, turn: Turn) -> AsyncGenerator[Arrival, None]:
        """One attempt, or two where the first is late and may be hedged."""
        spec = turn.step.target
        state = self._around.states[spec.name]
        if spec.hedge and turn.manner is Manner.AFRESH and not turn.wait_s:
            late_s = state.first_tokens[self._streams(turn)].late_after_s()
            # A probe begins at once, not in a task of its own: until then the breaker would let others through too.
            if late_s is not None and not state.is_left_alone():
                return first_of(self._leg(turn), self._hedge, late_s, lambda error: self._lost(turn, error))
        return self._leg(turn)

    def _hedge(self) -> AsyncGenerator[Arrival, None] | None:
        turn = self._walk.hedge()
        if turn is None:
            return None
        self._around.metrics.hedged(turn.step.target.name)
        return self._leg(turn)

    def _lost(self, first: Turn, error: Exception) -> bool:
        """Notes that one of two attempts failed. False where it is the request's own fault, which ends both."""
        if isinstance(error, _LegFailed):
            if error.turn is first and not isinstance(error.error, FAILS_OVER):
                return False
            self._tell(error)
            self._walk.note(error.turn, error.error)
        return True

    async def _leg(self, turn: Turn) -> AsyncGenerator[Arrival, None]:
        """The arrivals of one attempt, whose end is written down whichever way it comes."""
        attempt = self._begin(turn)
        outcome, reason = Outcome.CANCELLED, _CANCELLED
        try:
            async with aclosing(self._pieces(turn, attempt)) as pieces:
                async for piece in pieces:
                    if piece.finished:
                        # Before the yield: whoever reads may stop reading once the answer is whole.
                        outcome, reason = Outcome.OK, ""
                    bill = self._bill(turn, attempt, piece)
                    yield Arrival(attempt, piece, self._native(turn), bill, self._walk.attempts)
        except DeadlinePassed:
            raise
        except WeirError as error:
            outcome, reason = _broken(attempt, error), Reason(error.reason).name
            raise _LegFailed(turn, error) from error
        except Exception as error:
            self._around.logger.exception("target adapter failed", error, target=attempt.target.name)
            if outcome is Outcome.OK:
                return  # the answer is whole, and nobody may go on with it
            outcome, reason = _broken(attempt, error), _INTERNAL
            kind = UpstreamTruncated if attempt.has_first_token else UpstreamError
            raise _LegFailed(turn, kind(f"{attempt.target.name}: internal error")) from error
        finally:
            self._end(turn, attempt, outcome, reason)

    def _pieces(self, turn: Turn, attempt: Attempt) -> AsyncGenerator[Piece, None]:
        spec, streams = turn.step.target, self._streams(turn)
        state = self._around.states[spec.name]
        text = "" if turn.manner is Manner.AFRESH else self._delivered.text
        prefill = text if turn.manner is Manner.PREFILL else ""
        guard = Guard(
            attempt,
            spec.limits,
            self._around.clock,
            lambda count: self._around.metrics.malformed(spec.name, count),
            self._deadline_s,
            streams=streams,
            choices=self._request.choices,
        )
        asked = state.target.generate(self._request, attempt.request_id, stream=streams, prefill=prefill)
        watched = state.breaker.watched(guard.guarded(asked))
        return watched if turn.manner is Manner.AFRESH else continued(watched, turn.manner, text)

    def _begin(self, turn: Turn) -> Attempt:
        spec, around = turn.step.target, self._around
        cap = self._request.max_output_tokens or spec.default_max_output_tokens
        embeds = self._request.endpoint is Endpoint.EMBEDDINGS
        attempt = Attempt(
            self._asked,
            number=self._walk.attempts,
            target=around.states[spec.name].target.describe(),
            reason=self._walk.reason(turn.step),
            entry_id=around.new_id(),
            begun_at=around.clock.now(),
            begun_s=around.clock.monotonic(),
            reserved_output_tokens=0 if embeds else cap * self._request.choices,
        )
        around.log.begin(attempt.begun())
        return attempt

    def _end(self, turn: Turn, attempt: Attempt, outcome: Outcome, reason: str) -> None:
        around = self._around
        entry = attempt.ended(outcome, reason, around.clock.monotonic())
        around.log.end(entry)
        around.metrics.ended(attempt.target.name, entry)
        if self._asked.ended is not None and entry.usage is not None:
            self._asked.ended(entry.usage)
        if attempt.first_token_s is not None:
            seen = around.states[turn.step.target.name].first_tokens[self._streams(turn)]
            seen.add(attempt.first_token_s)
            if outcome is Outcome.CUT and self._is_live(turn):
                self._delivered.leg_ended(attempt.usage(), turn.manner)
        if outcome is not Outcome.OK:
            self._spent_nano_usd = _sum(self._spent_nano_usd, self._cost(attempt))

    def _bill(self, turn: Turn, attempt: Attempt, piece: Piece) -> Bill | None:
        if not piece.finished and (piece.usage is None or not self._native(turn)):
            return None  # our own models count in every piece, and only the last count is shown
        return Bill(
            usage=self._delivered.usage(attempt.usage(), turn.manner),
            cost_nano_usd=_sum(self._spent_nano_usd, self._cost(attempt)),
            target=attempt.target.name,
            attempts=self._walk.attempts,
        )

    def _cost(self, attempt: Attempt) -> int | None:
        usage = attempt.usage()
        if not (usage.input_tokens or usage.output_tokens or usage.cached_input_tokens):
            return 0
        charge = self._around.prices.charge(attempt.target, usage, attempt.begun_at)
        return None if charge is None else charge.nano_usd

    def _streams(self, turn: Turn) -> bool:
        # A unary answer of a provider comes in one piece: its first token is its last.
        return self._request.endpoint is not Endpoint.EMBEDDINGS and (
            self._request.stream or turn.step.target.is_local
        )

    def _native(self, turn: Turn) -> bool:
        """Whether the pieces' bodies are of the endpoint that the client asked."""
        if self._request.endpoint is Endpoint.EMBEDDINGS:
            return True
        spec = turn.step.target
        known = self._request.endpoint is not Endpoint.RESPONSES or spec.capabilities.has("responses")
        return turn.manner is Manner.AFRESH and known and not spec.is_local

    def _admits(self, target: str) -> bool:
        return self._around.states[target].breaker.admits()

    def _left_s(self) -> float:
        return self._deadline_s - self._around.clock.monotonic()

    def _tell(self, failure: _LegFailed) -> None:
        name, reason = failure.turn.step.target.name, Reason(failure.error.reason).name
        self._around.metrics.failed(name, reason)
        self._around.logger.warning(
            "attempt failed",
            target=name, request_id=self._asked.request_id, reason=reason, error=str(failure.error),
        )  # fmt: skip


def _broken(attempt: Attempt, error: Exception) -> Outcome:
    if isinstance(error, Diverged):
        return Outcome.CANCELLED
    return Outcome.CUT if attempt.has_first_token else Outcome.FAILED


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second
