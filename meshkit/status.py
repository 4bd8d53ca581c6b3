"""Errors on the wire: the nouns of meshkit.errors <-> gRPC trailers with google.rpc details."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

import grpc
from google.protobuf.message import DecodeError
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
    shown,
)

DETAILS_TRAILER = "grpc-status-details-bin"
HTTP_STATUS_TRAILER = "x-weir-http-status"
OPENAI_ERROR_TRAILER = "x-weir-error"
"""OpenAI's error object as ASCII JSON; the edge writes it into the body of an HTTP answer and removes the header."""
REQUEST_ID = "x-request-id"

FOREIGN = "grpc_status"
"""The detail of an error that a gRPC library told, not a servicer: the name of its status."""
_FOREIGN: dict[grpc.StatusCode, type[WeirError]] = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.DEADLINE_EXCEEDED: UpstreamTimeout,
    grpc.StatusCode.UNAVAILABLE: UpstreamError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
}
"""What a status without our details means: the peer's gRPC library speaks, not its servicer."""

_QUOTAS: Mapping[Reason, str] = MappingProxyType(
    {Reason.RATE_LIMITED: "rate", Reason.BUDGET_EXHAUSTED: "budget"}
)
"""What is used up: the subject of google.rpc.QuotaFailure."""
_MAX_QUOTA_BYTES = 500
"""Of the message where it is said a second time: all trailers together have 4 KiB."""

_BY_NAME: Mapping[str | None, type[WeirError]] = {reason.name: kind for reason, kind in BY_REASON.items()}


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
    pairs += error.headers.items()
    return pairs


def _details(error: WeirError) -> status_pb2.Status:
    status = status_pb2.Status(code=error.mapped.grpc_code.value[0], message=error.message)
    info = error_details_pb2.ErrorInfo(
        reason=Reason(error.reason).name, domain=DOMAIN, metadata=error.details
    )
    status.details.add().Pack(info)
    quota = _QUOTAS.get(error.reason)
    if quota is not None:
        used_up = error_details_pb2.QuotaFailure.Violation(
            subject=quota, description=shown(error.message, _MAX_QUOTA_BYTES)
        )
        status.details.add().Pack(error_details_pb2.QuotaFailure(violations=[used_up]))
    if error.param is not None:
        description = error.message if quota is None else ""
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.param, description=description)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.mapped.grpc_code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # What ran out is the reason itself; the message stands in the status.
        exhausted = error_details_pb2.QuotaFailure.Violation(subject=Reason(error.reason).name.lower())
        status.details.add().Pack(error_details_pb2.QuotaFailure(violations=[exhausted]))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(error.retry_after)
        status.details.add().Pack(retry)
    return status


def from_rpc_error(error: grpc.aio.AioRpcError) -> WeirError:
    """The noun that a servicer raised; for a status without details the nearest one.

    What a gRPC library says may name addresses: it is in the error's text for the log, and not in its message.
    """
    for key, value in error.trailing_metadata() or ():
        known = _from_details(value) if key == DETAILS_TRAILER and isinstance(value, bytes) else None
        if known is not None:
            return known
    name = error.code().name
    foreign = _FOREIGN.get(error.code(), InternalFault)(f"the call failed: {name}", details={FOREIGN: name})
    foreign.args = (f"{name}: {error.details() or 'no details'}",)
    return foreign


def _from_details(data: bytes) -> WeirError | None:
    """The noun, or None where the details are not ours or say nothing that we know."""
    try:
        status = status_pb2.Status.FromString(data)
        return _noun(status)
    except DecodeError:
        return None


def _noun(status: status_pb2.Status) -> WeirError | None:
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
    if info.domain != DOMAIN:
        return None
    kind = _BY_NAME.get(info.reason)
    if kind is None:
        return None  # a newer peer may know more reasons
    return kind(status.message, param=param, retry_after=retry_after, details=dict(info.metadata))
