"""An Auth for tests that call little of it."""

from __future__ import annotations

from gen.rpc import RpcContext
from gen.weir.auth.v1 import (
    CreateKeyRequest,
    CreateKeyResponse,
    GetKeyRequest,
    GetKeyResponse,
    KeepSamplesRequest,
    KeepSamplesResponse,
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
)
from gen.weir.auth.v1.service import AuthServicer


class UnservedAuth(AuthServicer):
    """Serves nothing of what a router seldom calls; Authenticate and WatchKeys are the subclass's."""

    async def lease_rate(self, request: LeaseRateRequest, context: RpcContext) -> LeaseRateResponse:
        raise NotImplementedError

    async def report_refusals(
        self, request: ReportRefusalsRequest, context: RpcContext
    ) -> ReportRefusalsResponse:
        raise NotImplementedError

    async def keep_samples(self, request: KeepSamplesRequest, context: RpcContext) -> KeepSamplesResponse:
        raise NotImplementedError

    async def create_key(self, request: CreateKeyRequest, context: RpcContext) -> CreateKeyResponse:
        raise NotImplementedError

    async def list_keys(self, request: ListKeysRequest, context: RpcContext) -> ListKeysResponse:
        raise NotImplementedError

    async def get_key(self, request: GetKeyRequest, context: RpcContext) -> GetKeyResponse:
        raise NotImplementedError

    async def rotate_key(self, request: RotateKeyRequest, context: RpcContext) -> RotateKeyResponse:
        raise NotImplementedError

    async def revoke_key(self, request: RevokeKeyRequest, context: RpcContext) -> RevokeKeyResponse:
        raise NotImplementedError

    async def set_key_sampling(
        self, request: SetKeySamplingRequest, context: RpcContext
    ) -> SetKeySamplingResponse:
        raise NotImplementedError

    async def list_audit(self, request: ListAuditRequest, context: RpcContext) -> ListAuditResponse:
        raise NotImplementedError

    async def list_samples(self, request: ListSamplesRequest, context: RpcContext) -> ListSamplesResponse:
        raise NotImplementedError
