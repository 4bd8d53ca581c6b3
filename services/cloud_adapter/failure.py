"""Which noun a provider's failure is: the one place where providers' words become Weir's errors.

Details for the router, in each: `delivered` (text or a part of a tool call was passed on), and one of `sent: false`
(the request never left, so it cost nothing), `status` (of HTTP, or that the provider's own error names; a success where
what came with it is no answer), or `sent: true` alone (the connection broke before an answer began). `provider_code`
where the provider gives one; `other_key: true` where one of several keys was refused and another can be used at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

from dialects.openai_fault import Fault
from meshkit.errors import (
    BodyTooLarge,
    ContentFiltered,
    ContextTooLong,
    InvalidRequest,
    RateLimited,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTruncated,
    WeirError,
)
from services.cloud_adapter.ports import UnreachableError

_CONTEXT = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_FILTER = frozenset({
    "content_filter", "content_policy_violation", "image_content_policy_violation", "moderation_blocked",
    "ResponsibleAIPolicyViolation",
})  # fmt: skip
_PROMPT = "invalid_prompt"
_RATE = frozenset({"rate_limit_exceeded", "rate_limit_error"})
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_LONGEST_CODE = 64
_BAD_REQUEST = frozenset({400, 422})
_ACCOUNT = (UpstreamError, "refuses this gateway's own account (HTTP {status})")
_BY_STATUS: Mapping[int, tuple[type[WeirError], str]] = MappingProxyType({
    401: _ACCOUNT,
    402: _ACCOUNT,
    403: _ACCOUNT,
    404: (UpstreamError, "has no model {model!r} (HTTP 404)"),
    408: (UpstreamTimeout, "gave up waiting (HTTP 408)"),
    413: (BodyTooLarge, "takes no body of this size (HTTP 413)"),
    429: (RateLimited, "limits the rate: {message}"),
})  # fmt: skip


def unreachable(provider: str, error: UnreachableError) -> WeirError:
    """The error for a provider that could not be asked."""
    kind = UpstreamTimeout if error.timed_out else UpstreamError
    details = {"delivered": "false", "sent": "true" if error.sent else "false"}
    return kind(f"{provider}: {error.text}", details=details)


def refused(
    provider: str, model: str, fault: Fault, status: int, retry_after: timedelta | None = None
) -> WeirError:
    """The error for a provider that gave no answer.

    A provider that refuses Weir's own credentials, payment or model name is an upstream error: none of it is the
    client's doing, another target may do, and waiting (RateLimited) would not help. Its text is dropped where it
    could speak of the account.

    Args:
        provider: its name in the configuration.
        model: the model that was asked for.
        fault: what the provider says; its texts are redacted already.
        status: of HTTP.
        retry_after: what the provider asks for.
    """
    error = _by_code(provider, fault) or _by_status(provider, model, fault, status)
    error.retry_after = retry_after
    error.details = _details(fault, status, delivered=False)
    return error


def error_for_an_answer(provider: str, model: str, fault: Fault, status: int) -> WeirError:
    """The error for a provider that sent one under a success, before any answer.

    Args:
        provider: its name in the configuration.
        model: the model that was asked for.
        fault: what the provider says, redacted. The status that it names counts, where it names one.
        status: of HTTP, a success.
    """
    error = _by_code(provider, fault) or _by_status(provider, model, fault, fault.status)
    error.details = _details(fault, fault.status or status, delivered=False)
    return error


def broken(provider: str, text: str, fault: Fault, status: int, *, delivered: bool) -> WeirError:
    """The error for an answer that began and is not whole.

    Args:
        provider: its name in the configuration.
        text: what is wrong with the answer.
        fault: what the provider says, redacted.
        status: of HTTP, a success.
        delivered: text or a part of a tool call was passed on.
    """
    kind = UpstreamTruncated if delivered else UpstreamError
    return kind(_says(provider, text, fault), details=_details(fault, status, delivered=delivered))


def _details(fault: Fault, status: int, *, delivered: bool) -> dict[str, str]:
    details = {"delivered": "true" if delivered else "false", "status": str(status)}
    if code := fault.code or fault.kind:
        details["provider_code"] = code[:_LONGEST_CODE]
    return details


def _by_code(provider: str, fault: Fault) -> WeirError | None:
    named = {fault.code, fault.kind, fault.inner_code}
    if named & _CONTEXT:
        return ContextTooLong(
            fault.message or f"prompt and answer do not fit {provider}'s model", param=fault.param
        )
    if named & _FILTER:
        return ContentFiltered(fault.message or f"{provider} refuses the content", param=fault.param)
    if fault.code == _PROMPT:
        return InvalidRequest(fault.message or f"{provider} refuses the prompt", param=fault.param)
    if named & _QUOTA:
        return UpstreamError(f"{provider}: the account's quota is used up")
    if named & _RATE:
        return RateLimited(_says(provider, "limits the rate", fault))
    return None


def _by_status(provider: str, model: str, fault: Fault, status: int | None) -> WeirError:
    if status in _BAD_REQUEST:
        return InvalidRequest(fault.message or f"{provider} refuses the request", param=fault.param)
    if status is None:
        return UpstreamError(_says(provider, "sent an error in place of an answer", fault))
    kind, text = _BY_STATUS.get(status, (UpstreamError, "answered HTTP {status}: {message}"))
    told = text.format(status=status, model=model, message=fault.message)
    return kind(f"{provider} {told}".removesuffix(": "))


def _says(provider: str, what: str, fault: Fault) -> str:
    return f"{provider} {what}: {fault.message}" if fault.message else f"{provider} {what}"
