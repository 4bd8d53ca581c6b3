"""Reads a spool that another life left behind."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from gen.weir.ledger.v1 import Entry
from meshkit.codec import Codec, MalformedMessageError
from meshkit.telemetry import Logger
from services.router.adapters.spool_format import (
    ENTRY_ID_BYTES,
    START,
    Gap,
    Kind,
    Position,
    Record,
    entry_id_of,
    unpack_position,
)
from services.router.adapters.spool_quarantine import Quarantine
from services.router.adapters.spool_segment import Segment

_OFFSET_BITS = 40


class OpenAttempt(NamedTuple):
    """A begun attempt: its encoded entry, and the segment that holds it."""

    payload: bytes
    segment: Segment


@dataclass
class Recovered:
    """What a spool holds. The defaults are an empty one."""

    segments: list[Segment] = field(default_factory=list)
    open: dict[bytes, OpenAttempt] = field(default_factory=dict)
    acked: Position = START
    last_end: Position = START
    unacked: int = 0
    oldest_s: float = 0.0
    """When the oldest unacknowledged attempt began, seconds since 1970."""
    reported: set[Position] = field(default_factory=set)
    """Where damaged bytes begin that were set aside already."""


class Recovery:
    """One pass over the segments, oldest first. Torn ends are cut off, damaged bytes set aside; both are logged."""

    def __init__(self, codec: Codec, quarantine: Quarantine, log: Logger) -> None:
        self._codec = codec
        self._quarantine = quarantine
        self._log = log
        self._found = Recovered()
        self._ends = array("Q")
        """Packed positions of ENDs, ascending: eight bytes each, since there may be very many."""
        self._begun_ms = array("Q")

    def read(self, folder: Path) -> Recovered:
        """What `folder` holds. Raises OSError."""
        segments = [Segment.existing(path) for path in folder.iterdir()]
        found = self._found
        found.segments = sorted((item for item in segments if item is not None), key=lambda item: item.number)
        for segment in found.segments:
            for item in segment.records():
                if isinstance(item, Gap):
                    self._gap(segment, item)
                else:
                    self._record(segment, item)
        first = bisect_right(self._ends, _packed(found.acked))
        found.unacked = len(self._ends) - first
        if found.unacked:
            found.oldest_s = self._begun_ms[first] / 1_000
        return found

    def _gap(self, segment: Segment, gap: Gap) -> None:
        if gap.torn:
            self._log.warning(
                "the last record of a spool segment was cut short by a crash",
                segment=segment.path.name, bytes=gap.end - gap.start,
            )  # fmt: skip
            segment.truncate(gap.start)
        else:
            self._quarantine.damaged(segment.path, gap.start, gap.end)
            self._found.reported.add(Position(segment.number, gap.start))

    def _record(self, segment: Segment, record: Record) -> None:
        if record.kind == Kind.ACK:
            self._found.acked = max(self._found.acked, unpack_position(record.payload) or START)
            return
        entry_id = self._entry_id(record.payload)
        if entry_id is None:
            return
        if record.kind == Kind.BEGIN:
            self._forget(entry_id)  # carried over: the later one counts
            self._found.open[entry_id] = OpenAttempt(record.payload, segment)
            segment.open_bytes += len(record.payload)
        else:
            self._forget(entry_id)
            self._found.last_end = Position(segment.number, record.end)
            self._ends.append(_packed(self._found.last_end))
            self._begun_ms.append(UUID(bytes=entry_id).int >> 80)

    def _forget(self, entry_id: bytes) -> None:
        attempt = self._found.open.pop(entry_id, None)
        if attempt is not None:
            attempt.segment.open_bytes -= len(attempt.payload)

    def _entry_id(self, payload: bytes) -> bytes | None:
        entry_id = entry_id_of(payload)
        if entry_id is None:
            entry_id = self._decoded_id(payload)
        if entry_id is None:
            self._quarantine.put(b"", payload, "no entry with an entry_id of 16 bytes")
        return entry_id

    def _decoded_id(self, payload: bytes) -> bytes | None:
        try:
            entry_id = self._codec.decode(Entry, payload).entry_id
        except MalformedMessageError:
            return None
        return entry_id if len(entry_id) == ENTRY_ID_BYTES else None


def _packed(position: Position) -> int:
    return position.segment << _OFFSET_BITS | position.offset
