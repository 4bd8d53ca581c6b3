"""The router's own copy of Auth's key set, kept by following Auth/WatchKeys."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import timedelta

import betterproto2

from gen.weir.auth.v1 import (
    AuditEvent,
    AuthenticateRequest,
    KeepSamplesRequest,
    Key,
    ReportRefusalsRequest,
    Sample,
    WatchKeysRequest,
    WatchKeysResponse,
)
from gen.weir.auth.v1.service import AuthClient
from meshkit.errors import Cancelled, KeyInvalid, UpstreamError, UpstreamTimeout, WeirError
from meshkit.telemetry import Logger
from services.router.adapters.key_copy import KeyCopy

_FIRST_RETRY_S = 0.1
_LONGEST_RETRY_S = 0.3
"""With the channel's own pause it is less than the second in which a revoked key must be refused."""


class KeySet:
    """Every key by id (services.router.ports.KeyDirectory).

    Args:
        silence: a watch that says nothing for so long is given up and begun anew; Auth's heartbeat is one second.
        ask_limit: how long Auth may take to answer about an unknown key.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        client: AuthClient,
        silence: timedelta,
        ask_limit: timedelta,
        monotonic: Callable[[], float],
        log: Logger,
    ) -> None:
        self._client = client
        self._silence_s = silence.total_seconds()
        self._ask_limit = ask_limit
        self._monotonic = monotonic
        self._log = log
        self._keys = KeyCopy()
        self._version = 0
        self._alive_at = float("-inf")
        self._loaded = asyncio.Event()

    def find(self, key_id: str) -> Key | None:
        """The key, if it is in the copy."""
        return self._keys.find(key_id)

    def age(self) -> timedelta:
        """How long ago Auth last gave a sign of life; very long if it never did."""
        return timedelta(seconds=min(self._monotonic() - self._alive_at, 1e9))

    async def ask(self, request: AuthenticateRequest) -> Key:
        """Asks Auth. Raises KeyInvalid and its kin; UpstreamError where Auth does not answer."""
        try:
            answer = await self._client.authenticate(request, timeout=self._ask_limit)
        except (UpstreamError, UpstreamTimeout, Cancelled) as error:
            raise UpstreamError(
                "a key that is new here cannot be checked now: auth does not answer"
            ) from error
        if answer.key is None:
            raise KeyInvalid("the key is not known")
        return answer.key

    async def report_refusals(self, events: Sequence[AuditEvent]) -> None:
        """Sends rows for the audit. Raises WeirError."""
        request = ReportRefusalsRequest(events=list(events))
        await self._client.report_refusals(request, timeout=self._ask_limit)

    async def keep_samples(self, samples: Sequence[Sample]) -> None:
        """Sends samples to be kept. Raises WeirError."""
        await self._client.keep_samples(KeepSamplesRequest(samples=list(samples)), timeout=self._ask_limit)

    async def loaded(self) -> None:
        """Returns once a snapshot was taken."""
        await self._loaded.wait()

    async def watch(self) -> None:
        """Follows Auth until cancelled; a broken watch goes on from the last version held."""
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                async for _ in self._events():
                    retry_s = _FIRST_RETRY_S
            except WeirError as error:
                if retry_s < _LONGEST_RETRY_S:  # a long outage is told by its first failures
                    self._log.warning("key watch broke", error=str(error), held=len(self._keys))
            except TimeoutError:
                self._log.warning("key watch fell silent", held=len(self._keys))
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, guards nothing
            retry_s = min(retry_s * 2, _LONGEST_RETRY_S)

    async def _events(self) -> AsyncGenerator[WatchKeysResponse, None]:
        answers = self._client.watch_keys(WatchKeysRequest(after_version=self._version))
        async with aclosing(answers):
            while True:
                async with asyncio.timeout(self._silence_s):
                    try:
                        event = await anext(answers)
                    except StopAsyncIteration:
                        return
                self._take(event)
                yield event

    def _take(self, event: WatchKeysResponse) -> None:
        kind, _ = betterproto2.which_one_of(event, "event")
        if kind == "snapshot" and event.snapshot is not None:
            self._keys.replace(event.snapshot.keys)
            self._loaded.set()
        elif kind == "changed" and event.changed is not None:
            self._keys.put(event.changed)
        self._version = event.version
        self._alive_at = self._monotonic()
