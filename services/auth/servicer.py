"""weir.auth.v1.Auth: decode, call the use case, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from typing_extensions import override

from gen.rpc import RpcContext
from gen.weir.auth.v1 import (
    AuthenticateRequest,
    AuthenticateResponse,
    CreateKeyRequest,
    CreateKeyResponse,
    GetKeyRequest,
    GetKeyResponse,
    KeepSamplesRequest,
    KeepSamplesResponse,
    Key,
    LeaseRateRequest,
    LeaseRateResponse,
    ListAuditRequest,
    ListAuditResponse,
    ListKeysRequest,
    ListKeysResponse,
    ListSamplesRequest,
    ListSamplesResponse,
    ReportRefusalsRequest,
    ReportRefusalsResponse,
    RevokeKeyRequest,
    RevokeKeyResponse,
    RotateKeyRequest,
    RotateKeyResponse,
    SetKeySamplingRequest,
    SetKeySamplingResponse,
    WatchKeysRequest,
    WatchKeysResponse,
)
from gen.weir.auth.v1.service import AuthServicer as AuthServicerBase
from services.auth.administer import Administer
from services.auth.domain import audit
from services.auth.domain.admin import Admin


@dataclass(frozen=True, slots=True)
class ForRouters:
    """What routers call."""

    authenticate: Callable[[AuthenticateRequest], Awaitable[Key]]
    watch_keys: Callable[[int], AsyncIterator[WatchKeysResponse]]
    lease_rate: Callable[[LeaseRateRequest], Awaitable[LeaseRateResponse]]
    report_refusals: Callable[[ReportRefusalsRequest], Awaitable[ReportRefusalsResponse]]
    keep_samples: Callable[[KeepSamplesRequest], Awaitable[KeepSamplesResponse]]


@dataclass(frozen=True, slots=True)
class ForAdmins:
    """What needs a key with a scope."""

    create_key: Callable[[CreateKeyRequest, Admin], Awaitable[CreateKeyResponse]]
    list_keys: Callable[[ListKeysRequest, Admin], Awaitable[ListKeysResponse]]
    get_key: Callable[[GetKeyRequest, Admin], Awaitable[GetKeyResponse]]
    rotate_key: Callable[[RotateKeyRequest, Admin], Awaitable[RotateKeyResponse]]
    revoke_key: Callable[[RevokeKeyRequest, Admin], Awaitable[RevokeKeyResponse]]
    set_key_sampling: Callable[[SetKeySamplingRequest, Admin], Awaitable[SetKeySamplingResponse]]
    list_audit: Callable[[ListAuditRequest, Admin], Awaitable[ListAuditResponse]]
    list_samples: Callable[[ListSamplesRequest, Admin], Awaitable[ListSamplesResponse]]


class AuthServicer(AuthServicerBase):
    """Keeps keys and says who holds them."""

    def __init__(self, routers: ForRouters, admins: ForAdmins, administer: Administer) -> None:
        self._routers = routers
        self._admins = admins
        self._administer = administer

    @override
    async def authenticate(self, request: AuthenticateRequest, context: RpcContext) -> AuthenticateResponse:
        return AuthenticateResponse(key=await self._routers.authenticate(request))

    @override
    def watch_keys(self, request: WatchKeysRequest, context: RpcContext) -> AsyncIterator[WatchKeysResponse]:
        return self._routers.watch_keys(request.after_version)

    @override
    async def lease_rate(self, request: LeaseRateRequest, context: RpcContext) -> LeaseRateResponse:
        return await self._routers.lease_rate(request)

    @override
    async def report_refusals(
        self, request: ReportRefusalsRequest, context: RpcContext
    ) -> ReportRefusalsResponse:
        return await self._routers.report_refusals(request)

    @override
    async def keep_samples(self, request: KeepSamplesRequest, context: RpcContext) -> KeepSamplesResponse:
        return await self._routers.keep_samples(request)

    @override
    async def create_key(self, request: CreateKeyRequest, context: RpcContext) -> CreateKeyResponse:
        use_case = partial(self._admins.create_key, request)
        return await self._administer(audit.KEYS_CREATE, "", use_case, context)

    @override
    async def list_keys(self, request: ListKeysRequest, context: RpcContext) -> ListKeysResponse:
        use_case = partial(self._admins.list_keys, request)
        return await self._administer(audit.KEYS_LIST, "", use_case, context)

    @override
    async def get_key(self, request: GetKeyRequest, context: RpcContext) -> GetKeyResponse:
        use_case = partial(self._admins.get_key, request)
        return await self._administer(audit.KEYS_SHOW, request.key_id, use_case, context)

    @override
    async def rotate_key(self, request: RotateKeyRequest, context: RpcContext) -> RotateKeyResponse:
        use_case = partial(self._admins.rotate_key, request)
        return await self._administer(audit.KEYS_ROTATE, request.key_id, use_case, context)

    @override
    async def revoke_key(self, request: RevokeKeyRequest, context: RpcContext) -> RevokeKeyResponse:
        use_case = partial(self._admins.revoke_key, request)
        return await self._administer(audit.KEYS_REVOKE, request.key_id, use_case, context)

    @override
    async def set_key_sampling(
        self, request: SetKeySamplingRequest, context: RpcContext
    ) -> SetKeySamplingResponse:
        use_case = partial(self._admins.set_key_sampling, request)
        return await self._administer(audit.KEYS_SAMPLE, request.key_id, use_case, context)

    @override
    async def list_audit(self, request: ListAuditRequest, context: RpcContext) -> ListAuditResponse:
        use_case = partial(self._admins.list_audit, request)
        return await self._administer(audit.AUDIT_LIST, "", use_case, context)

    @override
    async def list_samples(self, request: ListSamplesRequest, context: RpcContext) -> ListSamplesResponse:
        use_case = partial(self._admins.list_samples, request)
        return await self._administer(audit.SAMPLES_LIST, request.key_id, use_case, context)
