"""Reads how long a provider asks to be left alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_LONGEST = timedelta(days=1)


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """The wait that `retry-after-ms` or `retry-after` (seconds, or a date) names; None where it is absent or absurd.

    Args:
        headers: names in lower case.
        now: with a time zone.
    """
    millis, plain = headers.get("retry-after-ms"), headers.get("retry-after")
    span = _span(millis, timedelta(milliseconds=1)) or _span(plain, timedelta(seconds=1))
    if span is None and plain is not None:
        span = _until(plain, now)
    return span if span is not None and timedelta(0) <= span <= _LONGEST else None


def _span(text: str | None, unit: timedelta) -> timedelta | None:
    try:
        return None if text is None else float(text) * unit
    except (ValueError, OverflowError):
        return None


def _until(text: str, now: datetime) -> timedelta | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(aware - now, timedelta(0))
