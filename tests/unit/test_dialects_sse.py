"""dialects.sse: whatever the pieces, the same events."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects.sse import DONE, EventTooLargeError, SseEvent, SseSplitter

WHOLE = (
    b'\xef\xbb\xbf: a comment\n\ndata: {"a":1}\n\nevent: error\ndata:{"b":2}\nid: 7\n\nretry: 10\n\nevent: ping\n\n'
    b"data: one\ndata\ndata:  two\n\n\n\ndata: [DONE]\n\n"
)
EVENTS = [
    SseEvent(b'{"a":1}'),
    SseEvent(b'{"b":2}', b"error"),
    SseEvent(b"one\n\n two"),
    SseEvent(DONE),
]


def split(pieces: list[bytes], limit: int = 1_000) -> tuple[list[SseEvent], int]:
    splitter = SseSplitter(limit)
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events + splitter.end(), splitter.signs_of_life


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_every_split_position_gives_the_same_events(line_end: bytes) -> None:
    """A stream cut in two anywhere, within a line end too, gives the events of the whole."""
    whole = WHOLE.replace(b"\n", line_end)
    for position in range(len(whole) + 1):
        assert split([whole[:position], whole[position:]]) == (EVENTS, 2), position


@given(
    st.lists(
        st.sampled_from(
            [
                b"data: x",
                b"data:y",
                b"data",
                b": c",
                b"event: e",
                b"id: 1",
                b"",
                b"",
                b"nonsense",
                b"data: \xc3\xa9",
            ]
        )
    ),
    st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=1),
    st.data(),
)
def test_any_pieces_give_what_one_piece_gives(
    lines: list[bytes], line_ends: list[bytes], data: st.DataObject
) -> None:
    """Any lines with any mixture of line ends give the same events in one piece, in random pieces and byte by byte."""
    whole = b"".join(line + line_ends[number % len(line_ends)] for number, line in enumerate(lines))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    bounds = [0, *cuts, len(whole)]
    pieces = [whole[start:stop] for start, stop in pairwise(bounds)]
    expected = split([whole])
    assert split(pieces) == expected
    assert split([whole[at : at + 1] for at in range(len(whole))]) == expected


def test_events_come_as_soon_as_they_are_complete() -> None:
    """An event is given with the piece that holds its blank line, a trailing CR included."""
    splitter = SseSplitter(100)
    assert splitter.feed(b"data: a\r\n\r") == [SseEvent(b"a")]
    assert splitter.feed(b"\ndata: b\n") == []
    assert splitter.feed(b"\n") == [SseEvent(b"b")]


def test_last_event_without_blank_line_counts() -> None:
    """A sender that ends without the last blank line, or line end, loses nothing."""
    assert split([b"data: a\n\ndata: [DONE]"])[0] == [SseEvent(b"a"), SseEvent(DONE)]


def test_comment_is_a_sign_of_life() -> None:
    """A comment is no event, and is seen at once even without a blank line after it."""
    splitter = SseSplitter(100)
    assert splitter.feed(b": ping\n") == []
    assert splitter.signs_of_life == 1


@pytest.mark.parametrize(
    "piece",
    [b"data: " + b"x" * 101 + b"\n\n", b"x" * 101, b"data: 1234567890\n" * 11],
    ids=["event", "line", "lines"],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_huge_event_is_refused(piece: bytes, size: int) -> None:
    """An event over the limit is refused, however it arrives: as a long line, without line end, or in many lines."""
    splitter = SseSplitter(100)
    with pytest.raises(EventTooLargeError, match="100 bytes"):
        for start in range(0, len(piece), size):
            splitter.feed(piece[start : start + size])


def test_limit_is_of_one_event() -> None:
    """A long stream of events within the limit is no event over it."""
    assert len(split([b"data: 1234567890\n\n" * 1_000], limit=100)[0]) == 1_000
