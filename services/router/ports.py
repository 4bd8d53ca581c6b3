"""What the router's use cases need of the world, in their own words."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import Protocol

from dialects.request import Request
from gen.weir.auth.v1 import AuthenticateRequest, Key, LeaseRateRequest, LeaseRateResponse
from gen.weir.cloud.v1 import GenerateResponse
from gen.weir.ledger.v1 import Entry
from gen.weir.type.v1 import Target as TargetValue
from services.router.domain.target import TargetSpec

Piece = GenerateResponse
"""What arrived from a target since the last piece. A local target's pieces have text and no bodies; its usage counts
from the beginning of the answer, so that the last one seen is right even for an answer that was cut."""


class Target(Protocol):
    """One place that can answer."""

    @property
    def spec(self) -> TargetSpec:
        """As configured."""

    def describe(self) -> TargetValue:
        """As it is shown and accounted for now."""

    def is_up(self) -> bool:
        """Whether it answered its last probe; cheap."""

    def generate(
        self, request: Request, request_id: str, *, stream: bool, prefill: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """Asks once, never again. The last piece of a whole answer is `finished`.

        Closing the generator cancels the request upstream. Raises the nouns of meshkit.errors.

        `prefill` is the beginning of the answer, which another target gave; what comes back goes on from there. Only
        for targets whose capabilities have it.
        """


class KeyDirectory(Protocol):
    """The router's own copy of the key set."""

    def find(self, key_id: str) -> Key | None:
        """The key, if it is in the copy."""

    def age(self) -> timedelta:
        """How long ago Auth last gave a sign of life."""

    async def ask(self, request: AuthenticateRequest) -> Key:
        """Asks Auth about a key that the copy does not hold, or a JWT. Raises KeyInvalid and its kin."""


class RateAuthority(Protocol):
    """Who hands out slices of limits, so that they hold across routers."""

    async def lease(self, request: LeaseRateRequest) -> LeaseRateResponse:
        """Asks once, see weir.auth.v1.Auth/LeaseRate. Raises UpstreamError and its kin where there is no answer."""


class AttemptLog(Protocol):
    """Where every attempt is written before its first byte goes upstream, and again when it ends."""

    def begin(self, entry: Entry) -> None:
        """Stores the begun attempt; after it a crash of the process loses nothing. Raises LedgerUnavailable."""

    def end(self, entry: Entry) -> None:
        """Stores how it ended, under the same ids. Never raises."""


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now(self) -> datetime:
        """Wall time, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Returns after so long."""
