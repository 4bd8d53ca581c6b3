"""Spans, moments and shares as they are typed and shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from weirctl import spans


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("0", timedelta()),
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(days=1)),
        ("7d", timedelta(days=7)),
    ],
)
def test_spans(text: str, span: timedelta) -> None:
    """A number and a unit; nothing needs none."""
    assert spans.span(text) == span


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1.5h", "1h30m", " 1h", "٣h", "1H", "1234567d"])
def test_what_is_no_span(text: str) -> None:
    """The text is named, and how to write one."""
    with pytest.raises(ValueError, match="write 30m, 24h, 7d"):
        spans.span(text)


def test_moments() -> None:
    """A span counts back from now; a moment without a zone is UTC."""
    assert timedelta(hours=23) < datetime.now(UTC) - spans.since("24h") < timedelta(hours=25)
    assert spans.since("2026-01-02") == datetime(2026, 1, 2, tzinfo=UTC)
    assert spans.since("2026-01-02T03:00:00+03:00") == datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("text", ["yesterday", "", "2026-13-01", "999999d"])
def test_what_is_no_moment(text: str) -> None:
    """Also what lies before the calendar."""
    with pytest.raises(ValueError, match="write 30m, 24h, 7d, or a date"):
        spans.since(text)


@pytest.mark.parametrize(("text", "share"), [("off", 0), ("0", 0), ("0.25", 0.25), ("5%", 0.05), ("100%", 1)])
def test_shares(text: str, share: float) -> None:
    """A number, a percentage, or off."""
    assert spans.share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "1.01", "-0.1", "nan", "inf", "on", "5 percent"])
def test_what_is_no_share(text: str) -> None:
    """Nothing is stored by a slip."""
    with pytest.raises(ValueError, match="is no share"):
        spans.share(text)


def test_moments_are_shown_in_utc() -> None:
    """To the second; an absent one as it is called where it is shown."""
    assert spans.shown(datetime.fromisoformat("2026-01-02T03:04:05.9+03:00")) == "2026-01-02 00:04:05Z"
    assert (spans.shown(None), spans.shown(None, "never")) == ("-", "never")
