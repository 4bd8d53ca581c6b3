"""Triton's errors as meshkit's nouns. It reports most of them as text without a code; the text decides."""

from __future__ import annotations

from types import MappingProxyType

import grpc

from meshkit.errors import (
    ContextTooLong,
    RateLimited,
    UnsupportedParameter,
    UpstreamError,
    UpstreamTimeout,
    WeirError,
)

SATURATED = MappingProxyType({"saturated": "true"})
"""It has more to do than it can: no failure."""
DOWN = MappingProxyType({"down": "true"})
"""The next request would fail as well: the model is dead or not loaded, whatever its health endpoint says."""
NOT_SENT = MappingProxyType({"sent": "false"})
"""Nothing reached the server."""
_QUEUE = ("Exceeds maximum queue size", "Request timeout expired")
_DEAD = ("is not healthy", "unknown model", "is not ready", "has no available versions")
_TOO_LONG = "exceeds maximum input length"
_GUIDE = "guided_decoding_guide"
# grpcio says in words alone whether a connection broke or was never made.
_NO_CONNECTION = ("failed to connect to all addresses", "DNS resolution failed", "empty address list")


def in_band(target: str, text: str) -> WeirError:
    """The error that Triton's `text` tells, for the target of this name."""
    message = f"{target}: {text}"
    if any(phrase in text for phrase in _QUEUE):
        return RateLimited(message, details=SATURATED)
    if any(phrase in text for phrase in _DEAD):
        gone = UpstreamError(f"{target}: the model is not there", details=DOWN)
        gone.args = (message,)  # Triton's own words name its processes: for the log
        return gone
    if _TOO_LONG in text:
        return ContextTooLong(message)
    if _GUIDE in text:
        return UnsupportedParameter(message, param="response_format")
    return UpstreamError(message)


def out_of_band(target: str, error: grpc.aio.AioRpcError) -> WeirError:
    """The error that a call's status tells. Triton's own statuses carry the same texts as its in-band errors."""
    text, code = error.details() or "", error.code()
    told = in_band(target, text)
    if not isinstance(told, UpstreamError) or told.details:
        return told
    if code == grpc.StatusCode.UNAVAILABLE:
        unreached = any(phrase in text for phrase in _NO_CONNECTION)
        return UpstreamError(f"{target}: unavailable", details=NOT_SENT if unreached else None)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return UpstreamTimeout(f"{target}: no whole answer in time")
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        # What the client may ask has been checked: configuration and server do not fit, and Triton says where.
        return told
    return UpstreamError(f"{target}: {code.name.lower()}")
