"""Splits a stream of server-sent events, as it arrives, into the data of its events."""

from __future__ import annotations

from typing import Final, NamedTuple

DONE: Final = b"[DONE]"
"""The data with which OpenAI's streams end."""
_BOM = b"\xef\xbb\xbf"


class EventTooLargeError(ValueError):
    """An event is over the limit. What was split from the same piece before it is lost."""


class SseEvent(NamedTuple):
    """One event that carries data."""

    data: bytes
    """Its data lines, joined with line feeds."""
    name: bytes = b""
    """Its `event` field; empty where it has none."""


class SseSplitter:
    """Takes bytes in pieces cut anywhere and gives the events that they complete. One per stream.

    Lines end in LF, CRLF or CR. `id`, `retry` and unknown fields are ignored.

    Args:
        max_event_bytes: most data that one event, and most bytes that one line, may have.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._tail = bytearray()
        self._after_cr = False
        self._at_start = True
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = b""
        self.signs_of_life = 0
        """Comments and events without data so far: they carry nothing, and show that the sender lives."""

    def feed(self, piece: bytes) -> list[SseEvent]:
        """The events that `piece` completes. Raises EventTooLargeError."""
        if self._after_cr or b"\r" in piece:
            piece = self._with_line_feeds(piece)
        if b"\n" not in piece:
            self._tail += piece
            self._refuse_over_limit(len(self._tail))
            return []
        lines = piece.split(b"\n")
        if self._tail:
            lines[0] = bytes(self._tail) + lines[0]
            self._tail.clear()
        if lines[-1]:
            self._tail += lines[-1]
            self._refuse_over_limit(len(self._tail))
        del lines[-1]
        return self._events(lines)

    def end(self) -> list[SseEvent]:
        """The event that the end of the stream completes: senders forget the blank line after the last one."""
        lines = [bytes(self._tail), b""]
        self._tail = bytearray()
        return self._events(lines)

    def _with_line_feeds(self, piece: bytes) -> bytes:
        if not piece:
            return piece
        skip = self._after_cr and piece.startswith(b"\n")  # its CR ended the line already
        self._after_cr = piece.endswith(b"\r")
        if skip:
            piece = piece[1:]
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _events(self, lines: list[bytes]) -> list[SseEvent]:
        if self._at_start:
            lines[0] = lines[0].removeprefix(_BOM)
            self._at_start = False
        events = []
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                events.append(SseEvent(b"\n".join(self._data), self._name))
                self._begin_event()
            elif self._name:
                self.signs_of_life += 1
                self._begin_event()
        return events

    def _take(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            self._data_bytes += len(line)
            self._refuse_over_limit(self._data_bytes)
        elif line.startswith(b":"):
            self.signs_of_life += 1
        elif line.startswith(b"event:"):
            self._name = line[6:].removeprefix(b" ")
        elif line == b"data":
            self._data.append(b"")

    def _begin_event(self) -> None:
        self._data, self._data_bytes, self._name = [], 0, b""

    def _refuse_over_limit(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise EventTooLargeError(f"an event is over {self._max_event_bytes} bytes")
