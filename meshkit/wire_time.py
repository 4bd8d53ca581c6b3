"""google.protobuf.Timestamp and Duration <-> datetime and timedelta, to the nanosecond.

Python's types end at microseconds, so a value with a finer part becomes a subclass that keeps it for the way back.
Such a value compares as its microseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Self

_Wire = Any  # an instance of the message class that protobuf makes at run time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NANOS_PER_MICRO = 1_000
_NANOS_PER_SECOND = 1_000_000_000
_MAX_DURATION_S = 315_576_000_000
"""Ten thousand years, the limit that google/protobuf/duration.proto sets; a timedelta could hold more."""


class NanoDatetime(datetime):
    """A point in time whose nanoseconds `datetime` alone would lose; `sub_micro_ns` is 1 to 999."""

    sub_micro_ns: int = 0

    @classmethod
    def extend(cls, moment: datetime, sub_micro_ns: int) -> Self:
        """The same moment, `sub_micro_ns` later."""
        extended = cls.combine(moment.date(), moment.timetz())
        extended.sub_micro_ns = sub_micro_ns
        return extended


class NanoTimedelta(timedelta):
    """A span whose nanoseconds `timedelta` alone would lose; `sub_micro_ns` is -999 to 999."""

    sub_micro_ns: int = 0


def fill_timestamp(moment: datetime, wire: _Wire) -> None:
    """Raises ValueError for a moment without a time zone."""
    if moment.tzinfo is None:
        raise ValueError("a timestamp needs a time zone")
    wire.seconds, micros = divmod((moment - _EPOCH) // _MICROSECOND, 1_000_000)
    wire.nanos = micros * _NANOS_PER_MICRO + getattr(moment, "sub_micro_ns", 0)


def read_timestamp(wire: _Wire) -> datetime:
    """In UTC. Raises ValueError or OverflowError outside the years 1 to 9999."""
    if not 0 <= wire.nanos < _NANOS_PER_SECOND:
        raise ValueError(f"Timestamp.nanos out of range: {wire.nanos}")
    micros, rest = divmod(wire.nanos, _NANOS_PER_MICRO)
    moment = _EPOCH + timedelta(seconds=wire.seconds, microseconds=micros)
    return NanoDatetime.extend(moment, rest) if rest else moment


def fill_duration(span: timedelta, wire: _Wire) -> None:
    """Raises ValueError beyond ten thousand years."""
    nanos = (span // _MICROSECOND) * _NANOS_PER_MICRO + getattr(span, "sub_micro_ns", 0)
    sign = -1 if nanos < 0 else 1
    seconds, rest = divmod(abs(nanos), _NANOS_PER_SECOND)
    _check_span(seconds, rest)
    wire.seconds, wire.nanos = sign * seconds, sign * rest


def read_duration(wire: _Wire) -> timedelta:
    """Raises ValueError beyond ten thousand years, and where the signs of seconds and nanos differ."""
    seconds, nanos = wire.seconds, wire.nanos
    _check_span(abs(seconds), abs(nanos))
    if seconds * nanos < 0:
        raise ValueError(f"Duration with two signs: {seconds} s {nanos} ns")
    sign = -1 if nanos < 0 else 1
    micros, rest = divmod(abs(nanos), _NANOS_PER_MICRO)
    if not rest:
        return timedelta(seconds=seconds, microseconds=sign * micros)
    span = NanoTimedelta(seconds=seconds, microseconds=sign * micros)
    span.sub_micro_ns = sign * rest
    return span


def _check_span(seconds: int, nanos: int) -> None:
    if nanos >= _NANOS_PER_SECOND or seconds + (nanos > 0) > _MAX_DURATION_S:
        raise ValueError(f"Duration out of range: {seconds} s {nanos} ns")
