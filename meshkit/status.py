"""Errors on the wire: the nouns of meshkit.errors <-> gRPC trailers with google.rpc details."""

from __future__ import annotations

import math
from datetime import timedelta

import grpc
from google.rpc import error_details_pb2, status_pb2

from gen.rpc import Metadata
from gen.weir.error.v1 import Reason
from meshkit.errors import (
    BY_REASON,
    DOMAIN,
    Cancelled,
    InternalFault,
    InvalidRequest,
    UpstreamError,
    UpstreamTimeout,
    WeirError,
    openai_error_json,
)

DETAILS_TRAILER = "grpc-status-details-bin"
HTTP_STATUS_TRAILER = "x-weir-http-status"
OPENAI_ERROR_TRAILER = "x-weir-error"
"""OpenAI's error object as ASCII JSON; the edge writes it into the body of an HTTP answer and removes the header."""
REQUEST_ID = "x-request-id"

_FOREIGN: dict[grpc.StatusCode, type[WeirError]] = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.DEADLINE_EXCEEDED: UpstreamTimeout,
    grpc.StatusCode.UNAVAILABLE: UpstreamError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
}
"""What a status without our details means: the peer's gRPC library speaks, not its servicer."""


def trailers(error: WeirError, request_id: str) -> Metadata:
    """The trailing metadata that carries an error: at most 4 KiB."""
    mapped = error.mapped
    pairs: list[tuple[str, str | bytes]] = [
        (DETAILS_TRAILER, _details(error).SerializeToString()),
        (HTTP_STATUS_TRAILER, str(mapped.http_status)),
        (OPENAI_ERROR_TRAILER, openai_error_json(error)),
        (REQUEST_ID, request_id),
    ]
    if error.retry_after is not None:
        pairs.append(("retry-after", str(math.ceil(error.retry_after.total_seconds()))))
    return pairs


def _details(error: WeirError) -> status_pb2.Status:
    status = status_pb2.Status(code=error.mapped.grpc_code.value[0], message=error.message)
    info = error_details_pb2.ErrorInfo(
        reason=Reason(error.reason).name, domain=DOMAIN, metadata=error.details
    )
    status.details.add().Pack(info)
    if error.param is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.param, description=error.message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(error.retry_after)
        status.details.add().Pack(retry)
    return status


def from_rpc_error(error: grpc.aio.AioRpcError) -> WeirError:
    """The noun that a servicer raised; for a status without details the nearest one."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_TRAILER:
            known = _from_details(status_pb2.Status.FromString(value))
            if known is not None:
                return known
    kind = _FOREIGN.get(error.code(), InternalFault)
    return kind(f"{error.code().name}: {error.details() or 'no details'}")


def _from_details(status: status_pb2.Status) -> WeirError | None:
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after: timedelta | None = None
    param: str | None = None
    for detail in status.details:
        detail.Unpack(info)
        if detail.Unpack(bad) and bad.field_violations:
            param = bad.field_violations[0].field
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
    if info.domain != DOMAIN or info.reason not in Reason.__members__:
        return None
    kind = BY_REASON[Reason[info.reason]]
    return kind(status.message, param=param, retry_after=retry_after, details=dict(info.metadata))
