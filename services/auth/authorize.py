"""Says who administers: the key that an administrative call carries."""

from __future__ import annotations

from gen.rpc import RpcContext
from gen.weir.auth.v1 import AuthenticateRequest
from gen.weir.type.v1 import Principal
from meshkit.scopes import scopes_of
from meshkit.tokens import from_authorization
from services.auth.authenticate import Authenticate
from services.auth.domain.admin import Admin

AUTHORIZATION = "authorization"


class Authorize:
    """Recognises the key in a call's metadata; what it may do is the use case's to check."""

    def __init__(self, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    async def __call__(self, context: RpcContext) -> Admin:
        """The caller. Raises KeyMissing, KeyInvalid, KeyExpired, KeyRevoked."""
        token = from_authorization(context.metadata.get(AUTHORIZATION))
        key = await self._authenticate(
            AuthenticateRequest(key_id=token.key_id, secret_sha256=token.secret_sha256)
        )
        principal = Principal() if key.principal is None else key.principal
        return Admin(
            principal, scopes_of(key.scopes), context.peer.address, context.peer.service, context.request_id
        )
