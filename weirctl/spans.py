"""Spans of time and shares, as people type them on a command line and as they are shown."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SPAN = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[smhd])")
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_PERCENT = 100


def span(text: str) -> timedelta:
    """`90s`, `30m`, `24h`, `7d`, or `0`. Raises ValueError."""
    if text == "0":
        return timedelta()
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no span of time: write 30m, 24h, 7d, or 0")
    return int(match["count"]) * _UNITS[match["unit"]]


def since(text: str) -> datetime:
    """`30m`, `24h`, `7d` before now, or a date or time in ISO 8601 (UTC if it names no zone). Raises ValueError."""
    try:
        if _SPAN.fullmatch(text):
            return datetime.now(UTC) - span(text)
        moment = datetime.fromisoformat(text)
    except (OverflowError, ValueError):
        raise ValueError(f"{text!r}: write 30m, 24h, 7d, or a date or time in ISO 8601") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def share(text: str) -> float:
    """`0.05`, `5%`, or `off`. Raises ValueError."""
    if text == "off":
        return 0.0
    try:
        value = float(text.removesuffix("%")) / (_PERCENT if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is no share: write a number from 0 to 1, a percentage such as 5%, or off")
    return value


def percent(part: float) -> str:
    """0.05 as `5 %`."""
    return f"{part * _PERCENT:g} %"


def shown(moment: datetime | None, absent: str = "-") -> str:
    """To the second, in UTC."""
    return absent if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
