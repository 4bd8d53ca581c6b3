"""Auth's administrative side in memory, for the commands that ask it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from gen.rpc import RpcContext, Transport
from gen.weir.auth.v1 import (
    AuditEvent,
    AuthenticateRequest,
    AuthenticateResponse,
    CreateKeyRequest,
    CreateKeyResponse,
    GetKeyRequest,
    GetKeyResponse,
    Key,
    ListAuditRequest,
    ListAuditResponse,
    ListKeysRequest,
    ListKeysResponse,
    ListSamplesRequest,
    ListSamplesResponse,
    RevokeKeyRequest,
    RevokeKeyResponse,
    RotateKeyRequest,
    RotateKeyResponse,
    Sample,
    SetKeySamplingRequest,
    SetKeySamplingResponse,
)
from gen.weir.type.v1 import Principal
from meshkit.errors import InvalidRequest, KeyInvalid, WeirError
from meshkit.inprocess import InProcessTransport
from meshkit.telemetry import Logger
from meshkit.tokens import from_authorization
from tests.fakes.auth import MOMENT, token_of

Item = TypeVar("Item")
ADMIN = token_of(999)
"""The admin key that it takes."""


class AdminAuth:
    """Keys in memory; every administrative call needs ADMIN."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.events: list[AuditEvent] = []
        self.samples: list[Sample] = []
        self.requests: list[object] = []
        """Every administrative request, as it came."""
        self.refuses: WeirError | None = None
        """What every administrative call raises instead."""
        self.largest_page = 1_000
        self._numbers = itertools.count(1)

    async def authenticate(self, request: AuthenticateRequest, context: RpcContext) -> AuthenticateResponse:
        """Whose key it is."""
        del context
        key = self.keys.get(request.key_id)
        if key is None or key.secret_sha256 != request.secret_sha256:
            raise KeyInvalid("the key is not known")
        return AuthenticateResponse(key=key)

    async def create_key(self, request: CreateKeyRequest, context: RpcContext) -> CreateKeyResponse:
        """Keeps it as asked. A model's name with a space is refused."""
        self._admit(request, context)
        if any(" " in model for model in request.models):
            raise InvalidRequest("a pattern holds a space", param="models[0]")
        token = token_of(next(self._numbers))
        self.keys[token.key_id] = key = Key(
            id=token.key_id,
            secret_sha256=token.secret_sha256,
            principal=Principal(key_id=token.key_id, org=request.org, team=request.team),
            label=request.label,
            created_at=MOMENT,
            expires_at=request.expires_at,
            models=request.models,
            targets=request.targets,
            owner=request.owner,
            labels=request.labels,
            networks=request.networks,
            scopes=request.scopes,
            limits=request.limits,
        )
        return CreateKeyResponse(key=key, token=token.text)

    async def list_keys(self, request: ListKeysRequest, context: RpcContext) -> ListKeysResponse:
        """A page; its token is the number of the next key."""
        self._admit(request, context)
        found = [key for key in reversed(self.keys.values()) if _fits(key, request)]
        page, token = self._page(found, request.page_size, request.page_token)
        return ListKeysResponse(keys=page, next_page_token=token)

    async def get_key(self, request: GetKeyRequest, context: RpcContext) -> GetKeyResponse:
        """The key."""
        self._admit(request, context)
        return GetKeyResponse(key=self._key(request.key_id))

    async def rotate_key(self, request: RotateKeyRequest, context: RpcContext) -> RotateKeyResponse:
        """Gives any token; the former secret is good until MOMENT and the overlap."""
        self._admit(request, context)
        until = MOMENT + request.overlap if request.overlap else None
        key = self._alter(request.key_id, previous_until=until)
        return RotateKeyResponse(key=key, token=token_of(next(self._numbers)).text)

    async def revoke_key(self, request: RevokeKeyRequest, context: RpcContext) -> RevokeKeyResponse:
        """Ends it at MOMENT."""
        self._admit(request, context)
        return RevokeKeyResponse(key=self._alter(request.key_id, revoked_at=MOMENT))

    async def set_key_sampling(
        self, request: SetKeySamplingRequest, context: RpcContext
    ) -> SetKeySamplingResponse:
        """Keeps the share."""
        self._admit(request, context)
        return SetKeySamplingResponse(key=self._alter(request.key_id, sampling=request.share))

    async def list_audit(self, request: ListAuditRequest, context: RpcContext) -> ListAuditResponse:
        """A page."""
        self._admit(request, context)
        page, token = self._page(self.events, request.page_size, request.page_token)
        return ListAuditResponse(events=page, next_page_token=token)

    async def list_samples(self, request: ListSamplesRequest, context: RpcContext) -> ListSamplesResponse:
        """Those of the key."""
        self._admit(request, context)
        return ListSamplesResponse(
            samples=[sample for sample in self.samples if request.key_id in {"", sample.key_id}]
        )

    def transport_to(self) -> Callable[[str, Path], AbstractAsyncContextManager[Transport]]:
        """In the place of weirctl.mesh_clients.transport_to."""

        @asynccontextmanager
        async def transport_to(service: str, home: Path) -> AsyncIterator[Transport]:
            del home
            assert service == "auth"
            yield InProcessTransport(self, Logger("test"))

        return transport_to

    def _admit(self, request: object, context: RpcContext) -> None:
        if self.refuses is not None:
            raise self.refuses
        token = from_authorization(context.metadata.get("authorization"))
        if token.text != ADMIN.text:
            raise KeyInvalid("the key is not known")
        self.requests.append(request)

    def _page(self, found: Sequence[Item], size: int, token: str) -> tuple[list[Item], str]:
        begin, size = int(token or 0), min(size or 100, self.largest_page)
        end = begin + size
        return list(found[begin:end]), str(end) if end < len(found) else ""

    def _key(self, key_id: str) -> Key:
        if key_id not in self.keys:
            raise InvalidRequest("no such key", param="key_id")
        return self.keys[key_id]

    def _alter(self, key_id: str, **changes: Any) -> Key:
        self.keys[key_id] = key = replace(self._key(key_id), **changes)
        return key


def _fits(key: Key, request: ListKeysRequest) -> bool:
    who = key.principal or Principal()
    ended = key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= datetime.now(UTC))
    return request.org in {"", who.org} and request.team in {"", who.team} and (request.ended or not ended)
