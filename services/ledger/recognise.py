"""Recognise: says who asks for a report. Auth knows; its good answers are remembered for a moment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256

from gen.weir.auth.v1 import AuthenticateRequest, Key
from gen.weir.type.v1 import Principal
from meshkit.bearer import looks_like_jwt
from meshkit.errors import Forbidden, KeyExpired
from meshkit.networks import Networks, host_of
from meshkit.scopes import scopes_of
from meshkit.tokens import from_authorization
from services.ledger.domain.reader import Reader
from services.ledger.ports import Clock, KeyDirectory

_BEARER = "bearer"
_Credential = tuple[str, bytes]
"""A key's id and its secret's SHA-256, or "" and the SHA-256 of a JWT."""


class Recognise:
    """Recognises the key or token that a call carries.

    Args:
        remembered_for: how long a good answer of Auth stands, so that the reports of one page ask Auth once; so long a
            revoked key may go on.
        most: how many answers are remembered.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        keys: KeyDirectory,
        clock: Clock,
        monotonic: Callable[[], float],
        remembered_for: timedelta,
        most: int,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._monotonic = monotonic
        self._remembered_for_s = remembered_for.total_seconds()
        self._most = most
        self._known: OrderedDict[_Credential, tuple[float, Key]] = OrderedDict()

    async def __call__(self, authorization: str | bytes | None, peer: str) -> Reader:
        """Whoever sent this Authorization header from this peer, as gRPC names it.

        Raises KeyMissing, KeyInvalid, KeyExpired, KeyRevoked; Forbidden from outside the key's networks; UpstreamError
        where Auth cannot be asked.
        """
        request = _asked(authorization)
        credential = (request.key_id, request.secret_sha256 or sha256(request.jwt.encode()).digest())
        key = self._remembered(credential)
        if key is None:
            key = await self._keys.ask(request)
            self._remember(credential, key)
        elif key.expires_at is not None and key.expires_at <= self._clock():
            raise KeyExpired("the key has expired")
        if key.networks and not Networks(key.networks).have(host_of(peer)):
            raise Forbidden("the key may not be used from this address")
        return Reader(Principal() if key.principal is None else key.principal, scopes_of(key.scopes))

    def _remembered(self, credential: _Credential) -> Key | None:
        ends_at, key = self._known.get(credential, (0.0, None))
        return key if key is not None and self._monotonic() < ends_at else None

    def _remember(self, credential: _Credential, key: Key) -> None:
        self._known.pop(credential, None)
        self._known[credential] = (self._monotonic() + self._remembered_for_s, key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)


def _asked(header: str | bytes | None) -> AuthenticateRequest:
    """What Auth is asked about this header: a token by its parts, a JWT as it is."""
    scheme, _, text = header.strip().partition(" ") if isinstance(header, str) else ("", "", "")
    if scheme.lower() == _BEARER and looks_like_jwt(text.strip()):
        return AuthenticateRequest(jwt=text.strip())
    token = from_authorization(header)
    return AuthenticateRequest(key_id=token.key_id, secret_sha256=token.secret_sha256)
