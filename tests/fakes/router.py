"""Fakes of the router's ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta

from dialects.chat_request import ChatRequest
from gen.weir.auth.v1 import Key
from gen.weir.ledger.v1 import Entry
from gen.weir.type.v1 import Locality
from gen.weir.type.v1 import Target as TargetValue
from meshkit.errors import KeyInvalid, LedgerUnavailable, WeirError
from services.router.domain.target import Limits, TargetSpec
from services.router.ports import Piece

LIMITS = Limits(
    connect=timedelta(seconds=0.2),
    first_token=timedelta(seconds=0.2),
    inter_token=timedelta(seconds=0.2),
    total=timedelta(seconds=5),
)


def spec(name: str, *, local: bool, capabilities: frozenset[str] = frozenset()) -> TargetSpec:
    """A target's specification with short limits."""
    return TargetSpec(
        target=TargetValue(
            name=name,
            locality=Locality.LOCAL if local else Locality.CLOUD,
            provider="triton" if local else "openai",
            model=f"{name}-model",
        ),
        limits=LIMITS,
        capabilities=capabilities if local else frozenset({"*"}),
        default_max_output_tokens=64,
    )


class FakeTarget:
    """Plays a script: pieces are yielded, errors raised, numbers are seconds of silence, None waits for ever."""

    def __init__(self, target_spec: TargetSpec, script: Sequence[Piece | Exception | float | None]) -> None:
        self._spec = target_spec
        self.script = script
        self.up = True
        self.asked: list[ChatRequest] = []
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
        self, request: ChatRequest, request_id: str, *, stream: bool
    ) -> AsyncGenerator[Piece, None]:
        del request_id, stream
        self.asked.append(request)
        try:
            for step in self.script:
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
    """Time that moves when told to (services.router.ports.Clock)."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.elapsed_s)

    def monotonic(self) -> float:
        return 1_000.0 + self.elapsed_s


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

    async def ask(self, key_id: str, secret_sha256: bytes) -> Key:
        self.asked.append(key_id)
        key = self.at_auth.get(key_id)
        if key is None or key.secret_sha256 != secret_sha256:
            raise KeyInvalid("the key is not known")
        return key
