"""envoy.service.auth.v3.Authorization: what the edge asks before a request to another service."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Final
from urllib.parse import quote

from typing_extensions import override

from gen.envoy.service.auth.v3 import (
    AttributeContext,
    CheckRequest,
    CheckResponse,
    DeniedHttpResponse,
    HeaderAppendAction,
    HeaderValue,
    HeaderValueOption,
    HttpStatus,
    OkHttpResponse,
    Status,
)
from gen.envoy.service.auth.v3.service import AuthorizationServicer
from gen.rpc import RpcContext
from gen.weir.auth.v1 import Key
from gen.weir.type.v1 import Principal
from meshkit.errors import KeyMissing, WeirError, openai_error_json
from meshkit.ids import request_id
from meshkit.scopes import name_of, scope_of, scopes_of
from services.auth.check import Question

# What the edge says of a route: edge/services.py writes it.
EXTENSION_SERVICE: Final = "weir.service"
EXTENSION_SCOPE: Final = "weir.scope"
EXTENSION_KEEP: Final = "weir.keep_authorization"

_AUTHORIZATION: Final = "authorization"
_EXTERNAL_ADDRESS: Final = "x-envoy-external-address"
_GRPC: Final = "application/grpc"
_DENIALS: Final = frozenset({401, 403, 429})
"""What a client is told. Whatever else fails means that Auth cannot say: the call fails, and nothing passes."""
_UNAUTHORIZED: Final = 401
_VISIBLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class ExtAuthzServicer(AuthorizationServicer):
    """Answers Envoy in its own terms.

    Args:
        check: the key that may pass; a WeirError for a request that may not.
    """

    def __init__(self, check: Callable[[Question], Awaitable[Key]]) -> None:
        self._check = check

    @override
    async def check(self, request: CheckRequest, context: RpcContext) -> CheckResponse:
        told = AttributeContext() if request.attributes is None else request.attributes
        headers = _headers(told)
        try:
            key = await self._check(_question(told, headers))
        except WeirError as error:
            if error.mapped.http_status not in _DENIALS:
                raise
            return _denied(error, headers)
        return _passed(key, keep_authorization=told.context_extensions.get(EXTENSION_KEEP) == "true")


def _question(told: AttributeContext, headers: dict[str, str]) -> Question:
    """Raises ValueError for a scope that is not known here: the call fails, and nothing passes."""
    scope = told.context_extensions.get(EXTENSION_SCOPE)
    return Question(
        authorization=headers.get(_AUTHORIZATION),
        address=headers.get(_EXTERNAL_ADDRESS) or _source(told),
        scope=None if scope is None else scope_of(scope),
        service=told.context_extensions.get(EXTENSION_SERVICE, ""),
    )


def _headers(told: AttributeContext) -> dict[str, str]:
    if told.request is None or told.request.http is None:
        return {}
    return told.request.http.headers


def _source(told: AttributeContext) -> str:
    """The other end of the connection: the client, or a proxy before the edge."""
    address = None if told.source is None else told.source.address
    socket = None if address is None else address.socket_address
    return "" if socket is None else socket.address


def _passed(key: Key, *, keep_authorization: bool) -> CheckResponse:
    principal = Principal() if key.principal is None else key.principal
    identity = {
        "x-weir-key-id": key.id,
        "x-weir-org": principal.org,
        "x-weir-team": principal.team,
        "x-weir-scopes": ",".join(sorted(map(name_of, scopes_of(key.scopes)))),
    }
    return CheckResponse(
        status=Status(),
        ok_response=OkHttpResponse(
            headers=_set((name, quote(value, safe=_VISIBLE)) for name, value in identity.items()),
            headers_to_remove=[] if keep_authorization else [_AUTHORIZATION],
        ),
    )


def _denied(error: WeirError, asked: dict[str, str]) -> CheckResponse:
    is_grpc = asked.get("content-type", "").startswith(_GRPC)
    headers = {"x-request-id": request_id(asked.get("x-request-id")), **error.headers}
    if not is_grpc:
        headers["content-type"] = "application/json"
    if error.mapped.http_status == _UNAUTHORIZED:
        fault = "" if isinstance(error, KeyMissing) else ', error="invalid_token"'
        headers["www-authenticate"] = f'Bearer realm="weir"{fault}'
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after.total_seconds()))
    return CheckResponse(
        status=Status(code=error.mapped.grpc_code.value[0]),
        denied_response=DeniedHttpResponse(
            status=HttpStatus(code=error.mapped.http_status),
            headers=_set(headers.items()),
            # To a gRPC client the body is the status' message.
            body=error.message if is_grpc else openai_error_json(error),
        ),
    )


def _set(headers: Iterable[tuple[str, str]]) -> list[HeaderValueOption]:
    replace = HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    return [
        HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=replace)
        for name, value in headers
    ]
