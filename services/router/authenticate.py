"""Says who asks, from the router's own copy of the key set; Auth is asked only about keys the copy lacks."""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta

from gen.weir.auth.v1 import Key
from gen.weir.type.v1 import Principal
from meshkit.errors import KeyExpired, KeyInvalid, KeyRevoked, WeirError
from meshkit.tokens import Token, from_authorization, same_digest
from services.router.ports import Clock, KeyDirectory


class Authenticate:
    """Recognises the caller of a request.

    Args:
        keys: the copy of the key set.
        max_stale: how long known keys are honoured without a sign of life from Auth.
        refused_for: how long a refusal by Auth is remembered, so that a bad key costs Auth one call.
        refused_keys: how many refusals are remembered at most.
    """

    def __init__(
        self,
        keys: KeyDirectory,
        clock: Clock,
        max_stale: timedelta,
        refused_for: timedelta,
        refused_keys: int,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._max_stale = max_stale
        self._refused_for_s = refused_for.total_seconds()
        self._refused_keys = refused_keys
        self._refused: OrderedDict[tuple[str, bytes], tuple[float, type[WeirError], str]] = OrderedDict()

    async def authenticate(self, authorization: str | bytes | None) -> Principal:
        """The principal of an Authorization header. Raises KeyMissing, KeyInvalid, KeyExpired, KeyRevoked.

        Raises UpstreamError where the key is unknown and Auth cannot be asked.
        """
        token = from_authorization(authorization)
        key = self._keys.find(token.key_id)
        if key is None or self._keys.age() > self._max_stale:
            key = await self._ask(token)
        elif not same_digest(key.secret_sha256, token.secret_sha256):
            raise KeyInvalid("the key is not known")
        self._check_time(key)
        if key.principal is None:
            raise KeyInvalid("the key is not known")
        return key.principal

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

    def _check_time(self, key: Key) -> None:
        if key.revoked_at is not None:
            raise KeyRevoked("the key was revoked")
        if key.expires_at is not None and key.expires_at <= self._clock.now():
            raise KeyExpired("the key has expired")
