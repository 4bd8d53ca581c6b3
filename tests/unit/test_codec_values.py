"""Values at the edges of their types."""

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gen.google.api import HttpBody
from gen.weir.auth.v1 import Key
from gen.weir.cloud.v1 import GenerateRequest as CloudRequest
from gen.weir.ledger.v1 import Entry
from gen.weir.type.v1 import ChatMessage, Role, Sampling, Usage
from meshkit.codec import MalformedMessageError, mesh_codec


def _again(message: Any) -> Any:
    codec = mesh_codec()
    return codec.decode(type(message), codec.encode(message))


def _field(number: int, data: bytes) -> bytes:
    return bytes((number << 3 | 2, len(data))) + data


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [
        (0, 0), (0, 1), (0, 999_999_999), (-1, 999_999_999), (-1, 1), (1_700_000_000, 123_456_789),
        (-62_135_596_800, 0), (-62_135_596_800, 1), (253_402_300_799, 999_999_999), (253_402_300_799, 0),
    ],
)  # fmt: skip
def test_timestamp_to_the_nanosecond(seconds: int, nanos: int) -> None:
    """A timestamp from year 1 to 9999 comes back to the nanosecond, and is the datetime that it should be."""
    data = _field(5, Timestamp(seconds=seconds, nanos=nanos).SerializeToString())
    key = mesh_codec().decode(Key, data)
    assert mesh_codec().encode(key) == data
    assert key.created_at is not None
    assert key.created_at == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        seconds=seconds, microseconds=nanos // 1_000
    )


@pytest.mark.parametrize(
    "stamp",
    [
        Timestamp(seconds=-62_135_596_801), Timestamp(seconds=253_402_300_800), Timestamp(seconds=2**62),
        Timestamp(nanos=-1), Timestamp(nanos=1_000_000_000), Timestamp(seconds=-(2**63)),
    ],
    ids=str,
)  # fmt: skip
def test_timestamp_beyond_the_limits(stamp: Timestamp) -> None:
    """What protobuf's documentation forbids is refused."""
    with pytest.raises(MalformedMessageError):
        mesh_codec().decode(Key, _field(5, stamp.SerializeToString()))


@pytest.mark.parametrize("hours", [-12, 0, 5.5, 14])
def test_timestamp_of_another_zone(hours: float) -> None:
    """A moment is the same in any zone; it comes back in UTC."""
    moment = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=hours)))
    again = _again(Key(created_at=moment)).created_at
    assert again == moment
    assert again.utcoffset() == timedelta()


def test_timestamp_without_a_zone() -> None:
    """A moment that depends on where it is read has no bytes."""
    with pytest.raises(MalformedMessageError, match="time zone"):
        mesh_codec().encode(Key(created_at=datetime(2026, 1, 1)))  # noqa: DTZ001 - the fault under test


@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_timestamp_of_python_limits(moment: datetime) -> None:
    """Python's first and last moments cross."""
    assert _again(Key(created_at=moment)).created_at == moment


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [
        (0, 0), (0, 1), (0, -1), (1, 999_999_999), (-1, -999_999_999), (-1, 0), (0, -500_000_000),
        (315_576_000_000, 0), (-315_576_000_000, 0), (315_575_999_999, 999_999_999), (5, 123_456_000),
    ],
)  # fmt: skip
def test_duration_to_the_nanosecond(seconds: int, nanos: int) -> None:
    """A span comes back to the nanosecond, a negative one too."""
    data = _field(12, Duration(seconds=seconds, nanos=nanos).SerializeToString())
    entry = mesh_codec().decode(Entry, data)
    assert mesh_codec().encode(entry) == data
    assert entry.latency is not None
    assert entry.latency == timedelta(seconds=seconds, microseconds=int(nanos / 1_000))


@pytest.mark.parametrize(
    "span",
    [
        Duration(seconds=1, nanos=-1), Duration(seconds=-1, nanos=1), Duration(nanos=1_000_000_000),
        Duration(seconds=315_576_000_001), Duration(seconds=315_576_000_000, nanos=1), Duration(seconds=2**62),
    ],
    ids=str,
)  # fmt: skip
def test_duration_beyond_the_limits(span: Duration) -> None:
    """What protobuf's documentation forbids is refused."""
    with pytest.raises(MalformedMessageError):
        mesh_codec().decode(Entry, _field(12, span.SerializeToString()))


@pytest.mark.parametrize("span", [timedelta.max, timedelta.min])
def test_a_span_that_protobuf_forbids_has_no_bytes(span: timedelta) -> None:
    """A timedelta beyond ten thousand years is refused."""
    with pytest.raises(MalformedMessageError):
        mesh_codec().encode(CloudRequest(connect_timeout=span))


@pytest.mark.parametrize("number", [4, 99, -1, 2**31 - 1, -(2**31)])
def test_unknown_enum_value(number: int) -> None:
    """A value that this version does not know keeps its number."""
    data = mesh_codec().encode(ChatMessage(role=Role(number)))
    message = mesh_codec().decode(ChatMessage, data)
    assert int(message.role) == number
    assert mesh_codec().encode(message) == data


@pytest.mark.parametrize("number", [0.0, -0.0, math.inf, -math.inf, 5e-324, 1.7976931348623157e308])
def test_floats(number: float) -> None:
    """Floats come back bit for bit, the negative zero too."""
    again = _again(Sampling(temperature=number)).temperature
    assert (again, math.copysign(1, again)) == (number, math.copysign(1, number))


def test_nan() -> None:
    """NaN comes back."""
    assert math.isnan(_again(Sampling(temperature=math.nan)).temperature)


def test_absent_is_not_empty() -> None:
    """An optional field at its default is set; one that is not set stays None; so with sub-messages."""
    assert _again(Sampling()).max_output_tokens is None
    assert _again(Sampling(max_output_tokens=0)).max_output_tokens == 0
    assert _again(Usage(cached_input_tokens=0)).cached_input_tokens == 0
    assert _again(Entry()).usage is None
    assert _again(Entry(usage=Usage())).usage == Usage()
    assert _again(ChatMessage()).content == ""


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage(content=5),  # type: ignore[arg-type] # the fault under test
        ChatMessage(content="\ud800"),
        ChatMessage(role="loud"),  # type: ignore[arg-type] # the fault under test
        Usage(input_tokens=-1),
        Usage(input_tokens=2**64),
        Sampling(stop=[None]),  # type: ignore[list-item] # the fault under test
        Sampling(stop="ab"[0:1], temperature="hot"),  # type: ignore[arg-type] # the fault under test
        Entry(usage=ChatMessage(role=Role.USER)),  # type: ignore[arg-type] # the fault under test
        Entry(begun_at="now"),  # type: ignore[arg-type] # the fault under test
        HttpBody(data="text"),  # type: ignore[arg-type] # the fault under test
    ],
    ids=range(10),
)
def test_values_that_do_not_fit(message: Any) -> None:
    """A value that its field cannot hold is refused, with the message's name and not its content."""
    with pytest.raises(MalformedMessageError, match=type(message).__name__):
        mesh_codec().encode(message)


def test_unknown_fields_are_dropped() -> None:
    """Fields of a newer version do no harm and do not travel on."""
    data = mesh_codec().encode(ChatMessage(content="x"))
    assert mesh_codec().encode(mesh_codec().decode(ChatMessage, data + _field(15, b"new"))) == data
