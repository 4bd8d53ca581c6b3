"""Says who asks, from the router's own copy of the key set; Auth is asked only about keys the copy lacks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256

from gen.weir.auth.v1 import AuthenticateRequest, Key, Scope
from meshkit.bearer import looks_like_jwt
from meshkit.errors import Forbidden, KeyExpired, KeyInvalid, KeyRevoked, UpstreamError
from meshkit.networks import Networks
from meshkit.scopes import need, scopes_of
from meshkit.tokens import Token, from_authorization, same_digest
from services.router.ask_auth import AskAuth
from services.router.domain.permissions import Caller, Permissions
from services.router.ports import Clock, KeyDirectory


class Authenticate:
    """Recognises the caller of a request.

    Args:
        keys: the copy of the key set.
        ask: asks Auth about what the copy lacks.
        max_stale: how long known keys are honoured without a sign of life from Auth.
        unknown_fresh: how long unknown ones are.
        callers: of how many keys at most it is remembered what they may use, as compiled from their patterns.
    """

    def __init__(
        self,
        keys: KeyDirectory,
        ask: AskAuth,
        clock: Clock,
        max_stale: timedelta,
        unknown_fresh: timedelta,
        callers: int = 10_000,
    ) -> None:
        self._keys = keys
        self._ask = ask
        self._clock = clock
        self._max_stale = max_stale
        self._unknown_fresh = unknown_fresh
        self._most_callers = callers
        self._callers: OrderedDict[str, tuple[Key, Caller]] = OrderedDict()

    async def authenticate(
        self, authorization: str | bytes | None, address: Callable[[], str], *any_of: Scope
    ) -> Caller:
        """The caller that an Authorization header names.

        Args:
            authorization: the header's value.
            address: the client's address; asked for only where the key is bound to networks.
            any_of: the scopes of which the caller needs one.

        Raises KeyMissing, KeyInvalid, KeyExpired, KeyRevoked, and Forbidden where scope or network do not fit;
        RateLimited and UpstreamError where the key is unknown and Auth cannot be asked now.
        """
        return self.admitted(await self.recognised(authorization), address, *any_of)

    async def recognised(self, authorization: str | bytes | None) -> Key:
        """The key whose secret an Authorization header has, which may have ended. Raises as `authenticate`."""
        jwt = _jwt_of(authorization)
        return await self._of_jwt(jwt) if jwt else await self._of_key(authorization)

    def admitted(self, key: Key, address: Callable[[], str], *any_of: Scope) -> Caller:
        """The caller with a key that was recognised just now. Raises KeyExpired, KeyRevoked, Forbidden."""
        self._check_time(key)
        caller = self._caller(key)
        need(caller.scopes, *any_of)
        if caller.networks is not None and not caller.networks.have(address()):
            raise Forbidden("the key may not be used from this network")
        return caller

    async def _of_key(self, authorization: str | bytes | None) -> Key:
        token = from_authorization(authorization)
        key = self._keys.find(token.key_id)
        digest = token.secret_sha256
        if key is None:
            self._check_fresh(self._unknown_fresh)
            request = AuthenticateRequest(key_id=token.key_id, secret_sha256=digest)
            return await self._ask((token.key_id, digest), request)
        self._check_fresh(self._max_stale)
        self._check_secret(key, token, digest)
        return key

    async def _of_jwt(self, jwt: str) -> Key:
        self._check_fresh(self._unknown_fresh)
        return await self._ask(("", sha256(jwt.encode("ascii")).digest()), AuthenticateRequest(jwt=jwt))

    def _check_secret(self, key: Key, token: Token, digest: bytes) -> None:
        if same_digest(key.secret_sha256, digest):
            return
        until = key.previous_until
        former = until is not None and until > self._clock.now()
        if not (former and same_digest(key.previous_sha256, digest)):
            raise KeyInvalid("the key is not known", details={"key_id": token.key_id})

    def _check_fresh(self, at_most: timedelta) -> None:
        age = self._keys.age()
        if age > at_most:
            raise UpstreamError(
                f"the key cannot be checked now: auth has given no sign of life for {age.total_seconds():.0f} s"
            )

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


def _jwt_of(authorization: str | bytes | None) -> str:
    """The JWT in an Authorization header; empty where it holds something else."""
    if not isinstance(authorization, str):
        return ""
    scheme, _, text = authorization.strip().partition(" ")
    text = text.strip()
    return text if scheme.lower() == "bearer" and looks_like_jwt(text) else ""


def _caller_of(key: Key) -> Caller:
    if key.principal is None:
        raise KeyInvalid("the key is not known")
    return Caller(
        key.principal,
        Permissions(key.models, key.targets),
        scopes_of(key.scopes),
        key.limits,
        key.sampling,
        Networks(key.networks) if key.networks else None,
    )
