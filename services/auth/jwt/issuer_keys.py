"""One issuer's keys, held as long as they may be and fetched as seldom as will do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from meshkit.errors import UpstreamError
from meshkit.telemetry import Logger
from services.auth.jwt.compact import Compact
from services.auth.jwt.metrics import TokenMetrics
from services.auth.jwt.ports import KeySource, KeySourceError
from services.auth.jwt.public_keys import LEAKED, KeyRing, PublicKey, read_jwks


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """When keys are fetched, in seconds."""

    fresh_s: float
    """After a good fetch, until the next one."""
    refetch_s: float
    """Between two fetches at least; so long after one that failed the next is tried."""
    stale_s: float
    """After a good fetch, until its keys are used no more."""


class IssuerKeys:
    """Fetches in the background, and at once where a token names a key that is not held.

    So a rotation is noticed with its first token, and a flood of invented names costs one fetch per `refetch_s`.
    A document that cannot be read changes nothing. One that can replaces all keys: what is no longer published is no
    longer trusted.

    Lifetime: `start` in the event loop that asks; `stop` ends what runs.
    """

    def __init__(
        self,
        name: str,
        source: KeySource,
        times: KeyTimes,
        monotonic: Callable[[], float],
        metrics: TokenMetrics,
        log: Logger,
    ) -> None:
        self._name = name
        self._source = source
        self._times = times
        self._monotonic = monotonic
        self._metrics = metrics
        self._log = log
        self._document: bytes | None = None
        self._ring = KeyRing({}, {})
        self._good_s = -math.inf
        self._begun_s = -math.inf
        self._told: str | None = None
        """The failure that the log has; the same one again and again would drown it."""
        self._flight: asyncio.Task[None] | None = None
        self._background: asyncio.Task[NoReturn] | None = None
        metrics.watch(name, lambda: self.age_s, lambda: len(self._ring.keys))

    @property
    def age_s(self) -> float:
        """Seconds since the last good fetch began; infinite before the first."""
        return self._monotonic() - self._good_s

    def start(self) -> None:
        """Begins to fetch; nobody waits for it but those who ask for a key."""
        self._background = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends every fetch."""
        for task in (self._background, self._flight):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def find(self, token: Compact) -> PublicKey | None:
        """The key that the token names, if its issuer publishes one for the token's algorithm.

        Raises UpstreamError where the issuer's keys are not at hand.
        """
        if not self._knows(token) and self._may_fetch():
            await self.refresh()
        if self.age_s > self._times.stale_s:
            raise UpstreamError("the keys of the token's issuer are not at hand")
        return self._ring.find(token)

    async def refresh(self) -> None:
        """Fetches once; whoever asks meanwhile waits for the same fetch. Raises nothing."""
        if self._flight is None:
            self._flight = asyncio.create_task(self._fetch())
        # One who goes away does not end the fetch for the others.
        await asyncio.shield(self._flight)

    def _knows(self, token: Compact) -> bool:
        return self.age_s <= self._times.stale_s and token.kid in self._ring.keys

    def _may_fetch(self) -> bool:
        return self._flight is not None or self._monotonic() - self._begun_s >= self._times.refetch_s

    async def _run(self) -> NoReturn:
        while True:
            await self.refresh()
            times = self._times
            await asyncio.sleep(times.fresh_s if self._told is None else min(times.refetch_s, times.fresh_s))

    async def _fetch(self) -> None:
        self._begun_s = self._monotonic()
        try:
            self._take(await self._source.fetch())
            self._good_s = self._begun_s
            self._succeeded()
        except (KeySourceError, ValueError) as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - a job that ends would let the keys go stale
            self._log.exception("fetching an issuer's keys failed", error, issuer=self._name)
            self._failed(type(error).__name__)
        finally:
            self._flight = None

    def _take(self, document: bytes) -> None:
        if document == self._document:
            return
        ring = read_jwks(document)
        self._document, self._ring = document, ring
        # Keys for other purposes are usual beside ours; none at all, or secrets in public, are not.
        tell = self._log.warning if not ring.keys or LEAKED in ring.unusable else self._log.info
        tell("issuer's keys read", issuer=self._name, keys=len(ring.keys), left_out=ring.unusable)

    def _succeeded(self) -> None:
        self._metrics.fetched(self._name, "good")
        if self._told is not None:
            self._log.info("issuer's keys can be had again", issuer=self._name)
        self._told = None

    def _failed(self, reason: str) -> None:
        self._metrics.fetched(self._name, "failed")
        if reason != self._told:
            self._log.warning("issuer's keys cannot be had", issuer=self._name, reason=reason)
        self._told = reason
