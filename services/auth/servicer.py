"""weir.auth.v1.Auth: decode, call the use case, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator

from typing_extensions import override

from gen.rpc import RpcContext
from gen.weir.auth.v1 import (
    AuthenticateRequest,
    AuthenticateResponse,
    CreateKeyRequest,
    CreateKeyResponse,
    WatchKeysRequest,
    WatchKeysResponse,
)
from gen.weir.auth.v1.service import AuthServicer as AuthServicerBase
from services.auth.authenticate import Authenticate
from services.auth.create_key import CreateKey
from services.auth.watch_keys import WatchKeys


class AuthServicer(AuthServicerBase):
    """Keeps keys and says who holds them."""

    def __init__(self, authenticate: Authenticate, watch_keys: WatchKeys, create_key: CreateKey) -> None:
        self._authenticate = authenticate
        self._watch_keys = watch_keys
        self._create_key = create_key

    @override
    async def authenticate(self, request: AuthenticateRequest, context: RpcContext) -> AuthenticateResponse:
        return AuthenticateResponse(key=await self._authenticate(request.key_id, request.secret_sha256))

    @override
    def watch_keys(self, request: WatchKeysRequest, context: RpcContext) -> AsyncIterator[WatchKeysResponse]:
        return self._watch_keys(request.after_version)

    @override
    async def create_key(self, request: CreateKeyRequest, context: RpcContext) -> CreateKeyResponse:
        return await self._create_key(request)
