"""Fakes of the router's ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from dialects.request import Request
from gen.weir.auth.v1 import AuditEvent, AuthenticateRequest, Key
from gen.weir.ledger.v1 import Entry
from gen.weir.type.v1 import Locality
from gen.weir.type.v1 import Target as TargetValue
from meshkit.errors import KeyInvalid, LedgerUnavailable, WeirError
from meshkit.ids import uuid7
from meshkit.telemetry import Logger
from pricing.price_list import PriceList
from services.router.answer import Answer, Answers
from services.router.ask_auth import AskAuth
from services.router.authenticate import Authenticate
from services.router.chat_completions import ChatCompletions
from services.router.clock import SystemClock
from services.router.completions import Completions
from services.router.deliver import Deliver
from services.router.domain.target import ANYTHING, Capabilities, Limits, ModelSpec, RetryRule, TargetSpec
from services.router.door import Door
from services.router.embed import Embed
from services.router.embeddings import Embeddings
from services.router.generate import Generate
from services.router.get_model import GetModel
from services.router.identity_settings import IdentitySettings
from services.router.list_models import ListModels
from services.router.metrics import RouterMetrics
from services.router.model_cards import ModelCards
from services.router.ports import Clock, Piece
from services.router.refusals import Refusals
from services.router.responses import Responses
from services.router.run_plan import RunPlan, Surroundings
from services.router.servicer import OpenAIFace, OpenAIUseCases, TypedRouter
from services.router.target_state import TargetState

LIMITS = Limits(
    connect=timedelta(seconds=0.2),
    first_token=timedelta(seconds=0.2),
    inter_token=timedelta(seconds=0.2),
    total=timedelta(seconds=5),
)


ONCE = RetryRule(attempts=1, error_attempts=1)
"""No target is asked twice."""


def spec(
    name: str,
    *,
    local: bool,
    capabilities: frozenset[str] = frozenset(),
    prefill: str = "",
    **more: Any,
) -> TargetSpec:
    """A target's specification with short limits; it is asked once unless `retry` says otherwise."""
    return TargetSpec(
        target=TargetValue(
            name=name,
            locality=Locality.LOCAL if local else Locality.CLOUD,
            provider="triton" if local else "openai",
            model=f"{name}-model",
        ),
        limits=LIMITS,
        capabilities=Capabilities(capabilities if local else frozenset({ANYTHING}), prefill=prefill),
        default_max_output_tokens=64,
        **{"retry": ONCE, **more},
    )


class FakeTarget:
    """Plays a script: pieces are yielded, errors raised, numbers are seconds of silence, None waits for ever."""

    def __init__(self, target_spec: TargetSpec, script: Sequence[Piece | Exception | float | None]) -> None:
        self._spec = target_spec
        self.script = script
        self.afresh: Sequence[Piece | Exception | float | None] | None = None
        """Played in place of the script where there is no prefill."""
        self.up = True
        self.asked: list[Request] = []
        self.prefills: list[str] = []
        self.closed = 0
        self.ended = 0
        """Answers that were read to their end; the others were closed before."""

    @property
    def spec(self) -> TargetSpec:
        return self._spec

    def describe(self) -> TargetValue:
        return self._spec.target

    def is_up(self) -> bool:
        return self.up

    async def generate(
        self, request: Request, request_id: str, *, stream: bool, prefill: str = ""
    ) -> AsyncGenerator[Piece, None]:
        del request_id, stream
        self.asked.append(request)
        self.prefills.append(prefill)
        try:
            for step in self.script if prefill or self.afresh is None else self.afresh:
                if step is None:
                    await asyncio.Event().wait()
                elif isinstance(step, float):
                    await asyncio.sleep(step)  # the silence of a slow target
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
            self.ended += 1
        finally:
            self.closed += 1


class FakeAttemptLog:
    """Keeps entries in memory (services.router.ports.AttemptLog)."""

    def __init__(self, refuse: WeirError | None = None) -> None:
        self.begun: list[Entry] = []
        self.ended: list[Entry] = []
        self._refuse = refuse
        self.refuse_after: int | None = None
        """How many begins are taken before the disk is full."""

    def begin(self, entry: Entry) -> None:
        if len(self.begun) == self.refuse_after:
            raise LedgerUnavailable("disk full")
        if self._refuse is not None:
            raise self._refuse
        self.begun.append(entry)

    def end(self, entry: Entry) -> None:
        self.ended.append(entry)


class FakeClock:
    """Time that moves when told to, and by sleeping (services.router.ports.Clock)."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.elapsed_s)

    def monotonic(self) -> float:
        return 1_000.0 + self.elapsed_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.elapsed_s += seconds


def surroundings(
    targets: Iterable[FakeTarget], log: FakeAttemptLog, clock: Clock | None = None, **changes: Any
) -> Surroundings:
    """What a run needs, over fakes, without prices; random draws are all 0."""
    clock = clock or SystemClock()
    whole: dict[str, Any] = {
        "states": {target.spec.name: TargetState(target, clock) for target in targets},
        "log": log,
        "prices": PriceList([]),
        "clock": clock,
        "new_id": uuid7,
        "draw": lambda: 0.0,
        "metrics": RouterMetrics(CollectorRegistry()),
        "logger": Logger("test"),
        "max_attempts": 6,
    }
    return Surroundings(**{**whole, **changes})


def faces(
    around: Surroundings,
    models: Mapping[str, ModelSpec],
    default_model: str,
    keys: FakeKeys,
    *,
    max_body_bytes: int = 1_000_000,
    limited: Callable[[Answers], Answers] = lambda answers: answers,
) -> tuple[TypedRouter, OpenAIFace]:
    """The router's servicers as the bootstrap makes them, without limits unless `limited` wraps the answer."""
    answer = limited(Answer(models, default_model, around.states, RunPlan(around), around.draw))
    deliver = Deliver(answer)
    minute = timedelta(minutes=1)
    identity = IdentitySettings(flood_answers_per_s=100_000)
    ask = AskAuth(keys.ask, around.clock, identity, minute, 10)
    authenticate = Authenticate(keys, ask, around.clock, minute, minute)
    refusals = Refusals(unreported, around.clock, identity, around.logger)
    door = Door(authenticate, refusals)
    cards = ModelCards(models, around.states, around.prices, around.clock, 1_700_000_000)
    use_cases = OpenAIUseCases(
        ChatCompletions(deliver),
        Completions(deliver),
        Responses(deliver),
        Embeddings(deliver),
        ListModels(cards),
        GetModel(cards),
    )
    return (
        TypedRouter(door, around.clock, Generate(answer), Embed(answer), ListModels(cards)),
        OpenAIFace(door, around.clock, use_cases, max_body_bytes),
    )


async def unreported(_: Sequence[AuditEvent]) -> None:
    """An audit that nobody reads."""


class FakeKeys:
    """A key set by hand (services.router.ports.KeyDirectory)."""

    def __init__(self, *keys: Key) -> None:
        self.held = {key.id: key for key in keys}
        self.at_auth: dict[str, Key] = {}
        self.asked: list[str] = []
        self.silent_for = timedelta()

    def find(self, key_id: str) -> Key | None:
        return self.held.get(key_id)

    def age(self) -> timedelta:
        return self.silent_for

    async def ask(self, request: AuthenticateRequest) -> Key:
        self.asked.append(request.key_id or request.jwt)
        key = self.at_auth.get(request.key_id or request.jwt)
        if key is None or key.secret_sha256 != request.secret_sha256:
            raise KeyInvalid("the key is not known")
        return key
