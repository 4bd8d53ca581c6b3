"""Auth as the ledger asks it, and who asks the ledger."""

from __future__ import annotations

from dataclasses import replace

from gen.rpc import Metadata, RpcContext
from gen.weir.auth.v1 import AuthenticateRequest, AuthenticateResponse, Key, Scope
from gen.weir.type.v1 import Principal
from meshkit.errors import KeyInvalid, KeyRevoked, UpstreamError
from meshkit.tokens import Token
from tests.fakes.auth import key_of, token_of

ADMIN, READER, CHATTER, STRANGER = map(token_of, (1, 2, 3, 4))


class FakeAuth:
    """Auth with an admin, a reader of acme/blue, and a key of the same team that may only chat."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        scopes = {ADMIN: [Scope.ADMIN], READER: [Scope.USAGE_READ], CHATTER: []}
        self.keys = {token.key_id: _key_of_blue(token, of) for token, of in scopes.items()}

    async def authenticate(self, request: AuthenticateRequest, context: RpcContext) -> AuthenticateResponse:
        """What Auth answers."""
        self.asked += 1
        assert context.peer.service == "ledger"
        if self.away:
            raise UpstreamError("the key store cannot be reached")
        key = self.keys.get(request.key_id)
        if key is None or key.secret_sha256 != request.secret_sha256:
            raise KeyInvalid("the key is not known")
        if key.revoked_at is not None:
            raise KeyRevoked("the key was revoked")
        return AuthenticateResponse(key=key)


def _key_of_blue(token: Token, scopes: list[Scope]) -> Key:
    principal = Principal(key_id=token.key_id, org="acme", team="blue")
    return replace(key_of(token), principal=principal, scopes=scopes)


def bearer(token: Token) -> Metadata:
    """What a call sends."""
    return (("authorization", f"Bearer {token.text}"),)
