"""Asks Auth about keys and tokens that the router does not know, seldom."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, TypeVar

from gen.weir.auth.v1 import AuthenticateRequest, Key
from meshkit.errors import Forbidden, KeyExpired, KeyInvalid, KeyRevoked, RateLimited, WeirError
from services.router.domain.token_bucket import TokenBucket
from services.router.identity_settings import IdentitySettings
from services.router.ports import Clock

Credential = tuple[str, bytes]
"""What was offered, without its secret: a key's id and its secret's SHA-256, or "" and the SHA-256 of a JWT."""

_Answer = TypeVar("_Answer")
_A_SECOND = timedelta(seconds=1)


class AskAuth:
    """Remembers Auth's answers, good and bad ones apart, lets several askers share one call, and limits the calls.

    Args:
        ask: asks Auth itself. Raises KeyInvalid, KeyExpired, KeyRevoked, Forbidden, UpstreamError.
        refused_for: how long a refusal is remembered, so that a bad key costs Auth one call.
        refused_keys: how many refusals are remembered at most.
    """

    def __init__(
        self,
        ask: Callable[[AuthenticateRequest], Awaitable[Key]],
        clock: Clock,
        settings: IdentitySettings,
        refused_for: timedelta,
        refused_keys: int,
    ) -> None:
        self._ask_auth = ask
        self._clock = clock
        self._settings = settings
        self._refused_for_s = refused_for.total_seconds()
        self._keys = TokenBucket(settings.asks_per_s, settings.asks_burst)
        self._tokens = TokenBucket(settings.asks_per_s, settings.asks_burst)
        self._refused = _Memory[tuple[type[WeirError], str]](refused_keys)
        self._found = _Memory[Key](settings.remembered_tokens)
        self._asking: dict[Credential, asyncio.Task[Key]] = {}

    async def __call__(self, credential: Credential, request: AuthenticateRequest) -> Key:
        """Auth's answer, asked for now or remembered. Raises what it raised, or RateLimited."""
        now_s = self._clock.monotonic()
        found = self._found.get(credential, now_s)
        if found is not None:
            return found
        refused = self._refused.get(credential, now_s)
        if refused is not None:
            kind, message = refused
            raise kind(message)  # a new one: an exception raised again and again keeps all its tracebacks
        asking = self._asking.get(credential)
        if asking is None:
            self._check_rate(credential, request, now_s)
            asking = self._asking[credential] = asyncio.create_task(self._ask(credential, request))
            asking.add_done_callback(lambda done: self._forget(credential, done))
        # One asker that goes away takes nothing from the others.
        return await asyncio.shield(asking)

    def _check_rate(self, credential: Credential, request: AuthenticateRequest, now_s: float) -> None:
        """Raises RateLimited. What Auth called good before is not unknown: a flood of others does not keep it out."""
        bucket = self._tokens if request.jwt else self._keys
        if credential not in self._found and not bucket.take(now_s):
            raise RateLimited(
                "too many unknown keys are being tried; this one was not checked", retry_after=_A_SECOND
            )

    async def _ask(self, credential: Credential, request: AuthenticateRequest) -> Key:
        try:
            key = await self._ask_auth(request)
        except (KeyInvalid, KeyExpired, KeyRevoked, Forbidden) as error:
            until_s = self._clock.monotonic() + self._refused_for_s
            self._refused.put(credential, until_s, (type(error), error.message))
            self._found.forget(credential)
            raise
        until_s = self._clock.monotonic() + self._good_for_s(request, key)
        self._found.put(credential, until_s, key)
        return key

    def _good_for_s(self, request: AuthenticateRequest, key: Key) -> float:
        if not request.jwt:
            return self._settings.found_for_s
        if key.expires_at is None:
            return self._settings.token_for_s
        left = key.expires_at - self._clock.now()
        return min(self._settings.token_for_s, left.total_seconds())

    def _forget(self, credential: Credential, done: asyncio.Task[Key]) -> None:
        del self._asking[credential]
        if not done.cancelled():
            done.exception()  # looked at: all askers may have gone


class _Memory(Generic[_Answer]):
    """Answers, each until its time; the oldest go first where there are too many.

    That there was an answer is known until then.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: OrderedDict[Credential, tuple[float, _Answer]] = OrderedDict()

    def __contains__(self, credential: Credential) -> bool:
        return credential in self._answers

    def get(self, credential: Credential, now_s: float) -> _Answer | None:
        remembered = self._answers.get(credential)
        return None if remembered is None or remembered[0] <= now_s else remembered[1]

    def put(self, credential: Credential, until_s: float, answer: _Answer) -> None:
        self._answers[credential] = (until_s, answer)
        self._answers.move_to_end(credential)
        while len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def forget(self, credential: Credential) -> None:
        """Drops the answer, if there is one."""
        self._answers.pop(credential, None)
