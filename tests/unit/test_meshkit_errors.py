"""The table of errors, and errors on the wire."""

import base64
import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from gen.weir.error.v1 import Reason
from meshkit.errors import (
    BY_REASON,
    MAX_RETRY_AFTER,
    TABLE,
    Cancelled,
    InternalFault,
    InvalidRequest,
    RateLimited,
    UpstreamError,
    UpstreamTimeout,
    WeirError,
    openai_error,
    openai_error_json,
)
from meshkit.status import DETAILS_TRAILER, from_rpc_error, trailers
from tools.error_table import PAGE, page

_MAX_TRAILERS_BYTES = 4_096
_TEXT = st.text(max_size=3_000) | st.text(alphabet='"\\%\x7f\n\ud800é漢😀 a', max_size=3_000)
every_reason = pytest.mark.parametrize(
    "reason", [reason for reason in Reason if reason], ids=lambda r: r.name
)


def _arrived(code: grpc.StatusCode, metadata: Any, text: str = "") -> WeirError:
    """What a client makes of a status."""
    status: Any = SimpleNamespace(code=lambda: code, details=lambda: text, trailing_metadata=lambda: metadata)
    return from_rpc_error(status)


def test_every_reason_has_a_row_and_a_noun() -> None:
    """The table and the nouns are complete; UNSPECIFIED, which is never sent, has neither."""
    assert set(TABLE) == set(BY_REASON) == set(Reason) - {Reason.UNSPECIFIED}


@every_reason
def test_an_error_travels(reason: Reason) -> None:
    """Each noun arrives as itself, with everything it carries."""
    error = BY_REASON[reason](
        "größer", param="a.b[0]", retry_after=timedelta(seconds=2.25), details={"attempts": "local: down"}
    )
    again = _arrived(error.mapped.grpc_code, trailers(error, "req_1"))
    assert type(again) is BY_REASON[reason]
    assert (again.message, again.param, again.retry_after, again.details) == (
        error.message, error.param, error.retry_after, error.details,
    )  # fmt: skip


@every_reason
def test_openai_shape(reason: Reason) -> None:
    """The object has OpenAI's four fields, param null where none is at fault."""
    error = BY_REASON[reason]("what")
    assert json.loads(openai_error_json(error)) == openai_error(error)
    assert openai_error(error)["error"] == {
        "message": "what",
        "type": TABLE[reason].openai_type,
        "param": None,
        "code": TABLE[reason].openai_code,
    }


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "0"), (0.001, "1"), (2.0, "2"), (2.1, "3"), (-5.0, "0")]
)
def test_retry_after_is_whole_seconds_rounded_up(seconds: float, header: str) -> None:
    """Nobody comes back too early."""
    pairs = dict(trailers(RateLimited("x", retry_after=timedelta(seconds=seconds)), "r"))
    assert pairs["retry-after"] == header


def test_retry_after_is_bounded() -> None:
    """A provider's absurd wait does not break the details."""
    error = RateLimited("x", retry_after=timedelta.max)
    assert error.retry_after == MAX_RETRY_AFTER
    assert _arrived(grpc.StatusCode.RESOURCE_EXHAUSTED, trailers(error, "r")).retry_after == MAX_RETRY_AFTER


@every_reason
@pytest.mark.parametrize("char", ["a", '"', "é", "漢", "😀"])
def test_the_longest_trailers_are_small(reason: Reason, char: str) -> None:
    """With everything that an error can carry at its longest, its trailers fit 4 KiB."""
    long = char * 3_000
    details = {name * 20: long for name in "abc"}
    error = BY_REASON[reason](long, param=long, details=details, retry_after=timedelta.max)
    assert _size(trailers(error, "r" * 128)) <= _MAX_TRAILERS_BYTES


def _size(pairs: Any) -> int:
    """Bytes on the wire."""
    return sum(
        len(name) + len(base64.b64encode(value) if isinstance(value, bytes) else value)
        for name, value in pairs
    )


@given(
    message=_TEXT,
    param=st.none() | _TEXT,
    details=st.dictionaries(st.text("abc_", max_size=40), _TEXT, max_size=8),
)
def test_trailers_are_small_and_safe(message: str, param: str | None, details: dict[str, str]) -> None:
    """Whatever an error says, its trailers fit 4 KiB as they travel, are printable ASCII, and come back whole."""
    error = RateLimited(message, param=param, details=details, retry_after=timedelta(seconds=1))
    pairs = trailers(error, "r" * 128)
    assert all(" " <= char <= "~" for _, value in pairs if isinstance(value, str) for char in value)
    assert _size(pairs) <= _MAX_TRAILERS_BYTES
    again = _arrived(grpc.StatusCode.RESOURCE_EXHAUSTED, pairs)
    assert (again.message, again.param, again.details) == (error.message, error.param, error.details)
    assert json.loads(openai_error_json(error))["error"]["message"] == error.message


@every_reason
def test_details_are_googles(reason: Reason) -> None:
    """Each error carries what any gRPC client can read: ErrorInfo, and what fits of the other standard details."""
    error = BY_REASON[reason]("used up", param="a.b[0]", retry_after=timedelta(seconds=2.5))
    status = status_pb2.Status.FromString(dict(trailers(error, "r"))[DETAILS_TRAILER])
    info, quota = error_details_pb2.ErrorInfo(), error_details_pb2.QuotaFailure()
    bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    found = {
        kind.DESCRIPTOR.name: kind
        for kind in (info, quota, bad, retry)
        if any(detail.Unpack(kind) for detail in status.details)
    }
    assert (info.reason, info.domain) == (reason.name, "weir")
    assert bad.field_violations[0].field == "a.b[0]"
    assert retry.retry_delay.ToTimedelta() == timedelta(seconds=2.5)
    limited = {Reason.RATE_LIMITED: "rate", Reason.BUDGET_EXHAUSTED: "budget"}
    assert ("QuotaFailure" in found) == (reason in limited)
    if reason in limited:
        assert (quota.violations[0].subject, quota.violations[0].description) == (limited[reason], "used up")


def test_a_short_message_is_whole() -> None:
    """Nothing is cut that fits."""
    assert InvalidRequest("é" * 100).message == "é" * 100
    assert len(InvalidRequest("a" * 1_000).message) == 700


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, UpstreamError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, UpstreamTimeout),
        (grpc.StatusCode.CANCELLED, Cancelled),
        (grpc.StatusCode.UNIMPLEMENTED, InternalFault),
        (grpc.StatusCode.UNKNOWN, InternalFault),
    ],
)
@pytest.mark.parametrize("metadata", [None, (), ((DETAILS_TRAILER, b"\xff\xff rubbish"),)])
def test_a_status_that_is_not_ours(code: grpc.StatusCode, kind: type[WeirError], metadata: Any) -> None:
    """Without details of ours the code says the nearest noun, and rubbish in their place does no harm."""
    error = _arrived(code, metadata, "peer said so")
    assert type(error) is kind
    assert (error.message, str(error)) == (f"the call failed: {code.name}", f"{code.name}: peer said so")


def test_a_reason_of_a_newer_peer() -> None:
    """A reason that this version does not know falls back to the code."""
    pairs = [
        (name, value.replace(b"UPSTREAM_ERROR", b"UPSTREAM_NOVEL") if isinstance(value, bytes) else value)
        for name, value in trailers(UpstreamError("x"), "r")
    ]
    assert type(_arrived(grpc.StatusCode.DEADLINE_EXCEEDED, pairs)) is UpstreamTimeout


def test_the_page_shows_the_table() -> None:
    """docs/errors.md is what `python -m tools.error_table` writes."""
    assert PAGE.read_text(encoding="utf-8") == page()
