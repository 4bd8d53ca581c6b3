"""Says who administers: the key that an administrative call carries."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gen.rpc import RpcContext
from gen.weir.auth.v1 import AuthenticateRequest
from gen.weir.type.v1 import Principal
from meshkit.bearer import looks_like_jwt
from meshkit.networks import host_of
from meshkit.scopes import scopes_of
from meshkit.tokens import from_authorization
from services.auth.authenticate import Authenticate
from services.auth.domain.admin import Admin
from services.auth.domain.key_use import check_network

AUTHORIZATION: Final = "authorization"
_BEARER: Final = "bearer"


class Authorize:
    """Recognises the key or token in a call's metadata; what it may do is the use case's to check."""

    def __init__(self, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    async def __call__(self, context: RpcContext) -> Admin:
        """The caller.

        Raises KeyMissing, KeyInvalid, KeyExpired, KeyRevoked; Forbidden from outside the key's networks, which a
        Unix socket and a call inside the process are.
        """
        key = await self._authenticate(_asked(context.metadata.get(AUTHORIZATION)))
        check_network(key.networks, host_of(context.peer.address))
        principal = Principal() if key.principal is None else key.principal
        return replace(stranger(context), principal=principal, scopes=scopes_of(key.scopes))


def stranger(context: RpcContext) -> Admin:
    """The caller as far as is known without a key."""
    peer = context.peer
    return Admin(Principal(), frozenset(), host_of(peer.address), peer.service, context.request_id)


def _asked(header: str | bytes | None) -> AuthenticateRequest:
    scheme, _, text = header.strip().partition(" ") if isinstance(header, str) else ("", "", "")
    if scheme.lower() == _BEARER and looks_like_jwt(text.strip()):
        return AuthenticateRequest(jwt=text.strip())
    token = from_authorization(header)
    return AuthenticateRequest(key_id=token.key_id, secret_sha256=token.secret_sha256)
