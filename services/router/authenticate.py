"""Says who asks, from the router's own copy of the key set; Auth is asked only about keys the copy lacks."""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta

from gen.weir.auth.v1 import Key
from meshkit.errors import KeyExpired, KeyInvalid, KeyRevoked, WeirError
from meshkit.tokens import Token, from_authorization, same_digest
from services.router.domain.permissions import Caller, Permissions
from services.router.ports import Clock, KeyDirectory


class Authenticate:
    """Recognises the caller of a request.

    Args:
        keys: the copy of the key set.
        max_stale: how long known keys are honoured without a sign of life from Auth.
        refused_for: how long a refusal by Auth is remembered, so that a bad key costs Auth one call.
        refused_keys: how many refusals are remembered at most.
        callers: of how many keys at most it is remembered what they may use, as compiled from their patterns.
    """

    def __init__(
        self,
        keys: KeyDirectory,
        clock: Clock,
        max_stale: timedelta,
        refused_for: timedelta,
        refused_keys: int,
        callers: int = 10_000,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._max_stale = max_stale
        self._refused_for_s = refused_for.total_seconds()
        self._refused_keys = refused_keys
        self._most_callers = callers
        self._callers: OrderedDict[str, tuple[Key, Caller]] = OrderedDict()
        self._refused: OrderedDict[tuple[str, bytes], tuple[float, type[WeirError], str]] = OrderedDict()

    async def authenticate(self, authorization: str | bytes | None) -> Caller:
        """The caller that an Authorization header names. Raises KeyMissing, KeyInvalid, KeyExpired, KeyRevoked.

        Raises UpstreamError where the key is unknown and Auth cannot be asked.
        """
        token = from_authorization(authorization)
        key = self._keys.find(token.key_id)
        if key is None or self._keys.age() > self._max_stale:
            key = await self._ask(token)
        elif not same_digest(key.secret_sha256, token.secret_sha256):
            raise KeyInvalid("the key is not known")
        self._check_time(key)
        return self._caller(key)

    async def _ask(self, token: Token) -> Key:
        asked = (token.key_id, token.secret_sha256)
        remembered = self._refused.get(asked)
        if remembered is not None and remembered[0] > self._clock.monotonic():
            _, kind, message = remembered
            raise kind(message)  # a new one: an exception raised again and again keeps all its tracebacks
        try:
            return await self._keys.ask(*asked)
        except (KeyInvalid, KeyExpired, KeyRevoked) as error:
            self._refused[asked] = (self._clock.monotonic() + self._refused_for_s, type(error), error.message)
            while len(self._refused) > self._refused_keys:
                self._refused.popitem(last=False)
            raise

    def _caller(self, key: Key) -> Caller:
        """Of a key that was recognised. What is remembered of it is good for as long as the key does not change."""
        known = self._callers.get(key.id)
        if known is not None and known[0] is key:
            return known[1]
        # A snapshot brings an unchanged key as another object, and so does Auth when it is asked.
        caller = known[1] if known is not None and known[0] == key else _caller_of(key)
        self._callers[key.id] = (key, caller)
        while len(self._callers) > self._most_callers:
            self._callers.popitem(last=False)
        return caller

    def _check_time(self, key: Key) -> None:
        if key.revoked_at is not None:
            raise KeyRevoked("the key was revoked")
        if key.expires_at is not None and key.expires_at <= self._clock.now():
            raise KeyExpired("the key has expired")


def _caller_of(key: Key) -> Caller:
    if key.principal is None:
        raise KeyInvalid("the key is not known")
    return Caller(key.principal, Permissions(key.models, key.targets))
