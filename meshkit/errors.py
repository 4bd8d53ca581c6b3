"""The one table of errors: reason -> gRPC code, HTTP status, OpenAI error object.

Use cases raise these nouns and never name a status. A servicer's wrapper (meshkit.serving) turns them into trailers;
a client's transport (meshkit.channel) turns trailers back into the same nouns. The reasons are
weir.error.v1.Reason's; docs/errors.md shows the table (`python -m tools.error_table` writes it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import grpc

from gen.weir.error.v1 import Reason

DOMAIN = "weir"
# What is longer is cut, so that all trailers of an error stay under 4 KiB. Bytes are those of the ASCII JSON form.
MAX_MESSAGE_BYTES = 700
MAX_PARAM_BYTES = 150
MAX_DETAIL_BYTES = 300
MAX_DETAILS_BYTES = 600
MAX_RETRY_AFTER = timedelta(days=365)

_CONTROL = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), " ")
_ESCAPED = frozenset('"\\')
_ASCII_END, _PLANE_0_END = 0x80, 0x1_0000


class Mapped(NamedTuple):
    """How one reason shows on each face. `openai_code` None is JSON's null."""

    grpc_code: grpc.StatusCode
    http_status: int
    openai_type: str
    openai_code: str | None
    retry_helps: bool


def _row(
    code: grpc.StatusCode, status: int, kind: str, openai_code: str | None, *, retry_helps: bool = False
) -> Mapped:
    return Mapped(code, status, kind, openai_code, retry_helps)


_BAD = "invalid_request_error"
_AUTH = "authentication_error"
_CODE = grpc.StatusCode
TABLE: Mapping[Reason, Mapped] = MappingProxyType(
    {
        Reason.INVALID_REQUEST: _row(_CODE.INVALID_ARGUMENT, 400, _BAD, None),
        Reason.UNSUPPORTED_PARAMETER: _row(_CODE.INVALID_ARGUMENT, 400, _BAD, "unsupported_parameter"),
        Reason.CONTEXT_TOO_LONG: _row(_CODE.INVALID_ARGUMENT, 400, _BAD, "context_length_exceeded"),
        Reason.CONTENT_FILTERED: _row(_CODE.INVALID_ARGUMENT, 400, _BAD, "content_policy_violation"),
        Reason.BODY_TOO_LARGE: _row(_CODE.OUT_OF_RANGE, 413, _BAD, "request_too_large"),
        Reason.KEY_MISSING: _row(_CODE.UNAUTHENTICATED, 401, _AUTH, "invalid_api_key"),
        Reason.KEY_INVALID: _row(_CODE.UNAUTHENTICATED, 401, _AUTH, "invalid_api_key"),
        Reason.KEY_EXPIRED: _row(_CODE.UNAUTHENTICATED, 401, _AUTH, "invalid_api_key"),
        Reason.KEY_REVOKED: _row(_CODE.UNAUTHENTICATED, 401, _AUTH, "invalid_api_key"),
        Reason.FORBIDDEN: _row(_CODE.PERMISSION_DENIED, 403, "permission_error", "insufficient_permissions"),
        Reason.MODEL_NOT_FOUND: _row(_CODE.NOT_FOUND, 404, _BAD, "model_not_found"),
        Reason.RATE_LIMITED: _row(
            _CODE.RESOURCE_EXHAUSTED, 429, "rate_limit_error", "rate_limit_exceeded", retry_helps=True
        ),
        Reason.BUDGET_EXHAUSTED: _row(
            _CODE.RESOURCE_EXHAUSTED, 429, "insufficient_quota", "insufficient_quota"
        ),
        Reason.NO_HEALTHY_TARGET: _row(
            _CODE.UNAVAILABLE, 503, "server_error", "no_healthy_target", retry_helps=True
        ),
        Reason.UPSTREAM_ERROR: _row(
            _CODE.UNAVAILABLE, 503, "server_error", "upstream_error", retry_helps=True
        ),
        Reason.LEDGER_UNAVAILABLE: _row(
            _CODE.UNAVAILABLE, 503, "server_error", "ledger_unavailable", retry_helps=True
        ),
        Reason.UPSTREAM_TIMEOUT: _row(
            _CODE.DEADLINE_EXCEEDED, 504, "server_error", "timeout", retry_helps=True
        ),
        Reason.UPSTREAM_TRUNCATED: _row(
            _CODE.UNAVAILABLE, 503, "server_error", "upstream_truncated", retry_helps=True
        ),
        Reason.UPSTREAM_STALLED: _row(
            _CODE.UNAVAILABLE, 503, "server_error", "upstream_stalled", retry_helps=True
        ),
        Reason.CANCELLED: _row(_CODE.CANCELLED, 499, "server_error", "cancelled"),
        Reason.INTERNAL: _row(_CODE.INTERNAL, 500, "server_error", None),
    }
)


class WeirError(Exception):
    """A failure with a reason. Its message may be shown to the caller and holds no secret.

    Args:
        message: what is wrong, in a sentence that names the fault.
        param: the request's field at fault, in the caller's own terms.
        retry_after: how long to wait before asking again, where that is known.
        details: more facts as text, for google.rpc.ErrorInfo.metadata; those that do not fit are left out.
        headers: what an HTTP client gets as headers beside the error: lower-case names, short ASCII values.

    What is shown is one line of text each; what is too long is cut.
    """

    reason: ClassVar[Reason] = Reason.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: timedelta | None = None,
        details: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = shown(message, MAX_MESSAGE_BYTES)
        self.param = None if param is None else shown(param, MAX_PARAM_BYTES)
        self.retry_after = (
            None if retry_after is None else min(max(retry_after, timedelta()), MAX_RETRY_AFTER)
        )
        self.details = _fitting(details or {})
        self.headers = dict(headers or {})

    @property
    def mapped(self) -> Mapped:
        """How this error shows on each face."""
        return TABLE[self.reason]


def shown(text: str, max_bytes: int) -> str:
    """`text` in one line that JSON, protobuf and headers can carry, its ASCII JSON form at most `max_bytes` long."""
    line = text[:max_bytes].translate(_CONTROL).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    left = max_bytes
    for index, char in enumerate(line):
        left -= _json_bytes(char)
        if left < 0:
            return line[:index]
    return line


def _json_bytes(char: str) -> int:
    if ord(char) < _ASCII_END:
        return 2 if char in _ESCAPED else 1
    return 6 if ord(char) < _PLANE_0_END else 12  # \uXXXX, or two of them


def _fitting(details: Mapping[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    left = MAX_DETAILS_BYTES
    for name, fact in details.items():
        text = shown(fact, MAX_DETAIL_BYTES)
        left -= len(name.encode()) + len(text.encode())
        if left < 0:
            break
        kept[name] = text
    return kept


class InvalidRequest(WeirError):
    """The request breaks the contract."""

    reason = Reason.INVALID_REQUEST


class UnsupportedParameter(WeirError):
    """No target of the plan honours a parameter."""

    reason = Reason.UNSUPPORTED_PARAMETER


class ContextTooLong(WeirError):
    """Prompt and answer do not fit the model."""

    reason = Reason.CONTEXT_TOO_LONG


class ContentFiltered(WeirError):
    """The provider refuses the content."""

    reason = Reason.CONTENT_FILTERED


class BodyTooLarge(WeirError):
    """The body is over the limit."""

    reason = Reason.BODY_TOO_LARGE


class KeyMissing(WeirError):
    """No key was sent."""

    reason = Reason.KEY_MISSING


class KeyInvalid(WeirError):
    """The key is malformed, unknown, or its secret is wrong."""

    reason = Reason.KEY_INVALID


class KeyExpired(WeirError):
    """The key's time has run out."""

    reason = Reason.KEY_EXPIRED


class KeyRevoked(WeirError):
    """The key was revoked."""

    reason = Reason.KEY_REVOKED


class Forbidden(WeirError):
    """The key is good and may not do this."""

    reason = Reason.FORBIDDEN


class ModelNotFound(WeirError):
    """The model is not configured."""

    reason = Reason.MODEL_NOT_FOUND


class RateLimited(WeirError):
    """Too many requests or tokens at present."""

    reason = Reason.RATE_LIMITED


class BudgetExhausted(WeirError):
    """The budget is spent."""

    reason = Reason.BUDGET_EXHAUSTED


class NoHealthyTarget(WeirError):
    """Every target of the plan is down."""

    reason = Reason.NO_HEALTHY_TARGET


class UpstreamError(WeirError):
    """A target failed before the first token."""

    reason = Reason.UPSTREAM_ERROR


class LedgerUnavailable(WeirError):
    """The ledger cannot be reached."""

    reason = Reason.LEDGER_UNAVAILABLE


class UpstreamTimeout(WeirError):
    """A target answered nothing in time."""

    reason = Reason.UPSTREAM_TIMEOUT


class UpstreamTruncated(WeirError):
    """The stream broke after the first token."""

    reason = Reason.UPSTREAM_TRUNCATED


class UpstreamStalled(WeirError):
    """The stream fell silent after the first token."""

    reason = Reason.UPSTREAM_STALLED


class Cancelled(WeirError):
    """The caller went away."""

    reason = Reason.CANCELLED


class InternalFault(WeirError):
    """A fault of Weir's own. Made by the wrapper alone: its text says nothing of the cause."""

    reason = Reason.INTERNAL


BY_REASON: Mapping[Reason, type[WeirError]] = MappingProxyType(
    {cls.reason: cls for cls in WeirError.__subclasses__()}
)


def openai_error(error: WeirError) -> dict[str, Any]:
    """OpenAI's error object: `{"error": {"message", "type", "param", "code"}}`."""
    mapped = error.mapped
    return {
        "error": {
            "message": error.message,
            "type": mapped.openai_type,
            "param": error.param,
            "code": mapped.openai_code,
        }
    }


def openai_error_json(error: WeirError) -> str:
    """The error object as ASCII JSON in one line, fit for a header and for an SSE event."""
    return json.dumps(openai_error(error), separators=(",", ":"))
