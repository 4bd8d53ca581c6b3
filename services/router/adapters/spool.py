"""The attempt log of one router worker: written inline, synced behind, read back by the feed.

Every method is called from one thread (the event loop's; the adopting thread's before the feed has the spool). States
of an attempt: open (begun), ended (unacknowledged), gone (the ledger has it). Begins of open attempts are carried
over from old segments, so what lies on disk is at most about twice what is not yet acknowledged, plus one segment.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from gen.weir.ledger.v1 import Entry
from meshkit.codec import Codec, MalformedMessageError
from meshkit.errors import LedgerUnavailable
from meshkit.telemetry import Logger
from services.router.adapters.spool_format import (
    ENTRY_ID_BYTES,
    MAX_PAYLOAD_BYTES,
    Gap,
    Kind,
    Position,
    Record,
    entry_id_of,
    pack_position,
)
from services.router.adapters.spool_owner import Owned
from services.router.adapters.spool_quarantine import Quarantine
from services.router.adapters.spool_recovery import OpenAttempt, Recovered
from services.router.adapters.spool_segment import Segment, Write
from services.router.adapters.spool_sync import BackgroundSync
from services.router.adopt_spools import aborted
from services.router.spool_settings import SpoolSettings

_MARK_INTERVAL_S = 1.0
"""Coarseness of the age of the oldest unacknowledged entry."""


class Ended(NamedTuple):
    """An ended attempt. `entry` is None where the bytes on disk are no entry; they are reported, and passed over."""

    entry: Entry | None
    position: Position


class SpoolContext(NamedTuple):
    """What the spools of a process share."""

    settings: SpoolSettings
    codec: Codec
    sync: BackgroundSync
    quarantine: Quarantine
    appended: Callable[[float], None]
    """Counts bytes."""
    log: Logger
    write: Write = os.write
    now: Callable[[], float] = time.time


class Spool:
    """Attempts on disk (services.router.ports.AttemptLog; a source of the ledger feed).

    Args:
        owned: the spool's folder, locked by this process.
        recovered: what the folder held before; None for a new one.
    """

    def __init__(self, owned: Owned, context: SpoolContext, recovered: Recovered | None = None) -> None:
        past = recovered or Recovered()
        self._owned = owned
        self._settings = context.settings
        self._codec = context.codec
        self._sync = context.sync
        self._quarantine = context.quarantine
        self._appended = context.appended
        self._log = context.log
        self._write = context.write
        self._now = context.now
        self._segments = past.segments
        self._open = past.open
        self._bytes = sum(segment.size for segment in past.segments)
        self._acked = past.acked
        self._last = past.last_end
        self._ended_count = past.unacked
        self._acked_count = 0
        self._held: dict[bytes, tuple[Entry, bytes]] = {}
        self._ring: OrderedDict[Position, Ended] = OrderedDict()
        """Ended entries in memory, each under the position of the end before it; the oldest unacknowledged ones."""
        self._marks: deque[tuple[int, float]] = deque()
        if past.unacked:
            self._marks.append((0, past.oldest_s))
        self._reported = past.reported
        self._listener: Callable[[], None] | None = None
        self._closed = False
        self._rotate()

    # What the attempt loop calls.

    def begin(self, entry: Entry) -> None:
        """Stores a begun attempt. Raises LedgerUnavailable if that cannot be, ValueError if it is no new attempt."""
        if len(entry.entry_id) != ENTRY_ID_BYTES or entry.entry_id in self._open:
            raise ValueError(f"entry_id {entry.entry_id.hex()!r} is not 16 bytes, or has begun already")
        self._check_room()
        payload = self._codec.encode(entry)
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise LedgerUnavailable(f"the attempt cannot be noted: over {MAX_PAYLOAD_BYTES} bytes")
        try:
            segment = self._append(Kind.BEGIN, payload)
        except OSError as error:
            raise LedgerUnavailable(f"the attempt cannot be noted: {error.strerror}") from error
        self._open[entry.entry_id] = OpenAttempt(payload, segment)
        segment.open_bytes += len(payload)

    def end(self, entry: Entry) -> None:
        """Stores how it ended. On a full disk it is kept in memory and stored later; begins are refused meanwhile."""
        opened = self._open.get(entry.entry_id)
        if opened is None or entry.entry_id in self._held:
            self._log.warning("an attempt ended that is not open; ignored", entry_id=entry.entry_id.hex())
            return
        try:
            payload = self._codec.encode(entry)
            if len(payload) > MAX_PAYLOAD_BYTES:
                raise MalformedMessageError(f"over {MAX_PAYLOAD_BYTES} bytes")  # noqa: TRY301 - one way out for both
        except MalformedMessageError as error:
            self._log.exception("how an attempt ended cannot be encoded; it counts as aborted", error)
            entry = aborted(self._codec.decode(Entry, opened.payload))
            payload = self._codec.encode(entry)
        if self._held or not self._store_end(entry, payload):
            self._held[entry.entry_id] = (entry, payload)

    def tend(self) -> None:
        """Tries again to store the ends that the disk refused. Called now and then."""
        for entry_id, (entry, payload) in list(self._held.items()):
            if not self._store_end(entry, payload):
                return
            del self._held[entry_id]

    # What the feed calls.

    @property
    def acked(self) -> Position:
        """The ledger has every end up to here."""
        return self._acked

    @property
    def last_end(self) -> Position:
        """Behind the newest end."""
        return self._last

    @property
    def unacked(self) -> int:
        """Ended entries that the ledger has not acknowledged."""
        return self._ended_count - self._acked_count

    @property
    def is_drained(self) -> bool:
        """Whether nothing in it is needed any more."""
        return self._acked >= self._last and not self._open

    @property
    def is_closed(self) -> bool:
        """Whether it was given up."""
        return self._closed

    def listen(self, listener: Callable[[], None] | None) -> None:
        """`listener` is called at every end."""
        self._listener = listener

    def read(self, after: Position, limit: int) -> list[Ended]:
        """At most `limit` ended attempts behind `after`, in order. Raises OSError."""
        found: list[Ended] = []
        while len(found) < limit and after < self._last:
            ended = self._ring.get(after)
            found.extend([ended] if ended is not None else self._read_back(after, limit - len(found)))
            after = found[-1].position
        return found

    def acknowledge(self, position: Position, count: int) -> None:
        """The ledger has the next `count` ends, up to `position`."""
        if position <= self._acked:
            return
        self._acked = position
        self._acked_count = self._ended_count if position >= self._last else self._acked_count + count
        while self._ring and next(iter(self._ring)) < position:
            self._ring.popitem(last=False)
        while self._marks and (self.unacked == 0 or self._is_past(self._marks)):
            self._marks.popleft()
        with suppress(OSError):  # a lost ACK means that entries are sent again, which is harmless
            self._append(Kind.ACK, pack_position(position))
        self._collect()

    def oldest_age_s(self) -> float:
        """Seconds since the oldest unacknowledged entry ended, to about a second; 0 without one."""
        try:
            return max(0.0, self._now() - self._marks[0][1]) if self.unacked else 0.0
        except IndexError:  # asked from the metrics' thread in the very moment of the last acknowledgement
            return 0.0

    # What adoption and the end of the process call.

    def open_attempts(self) -> list[Entry]:
        """Begun and never ended."""
        return [self._codec.decode(Entry, attempt.payload) for attempt in self._open.values()]

    def sync(self) -> None:
        """Returns when everything stored is on disk. Raises OSError."""
        self.tend()
        if self._held:
            raise OSError("the disk refuses the ends of attempts")
        self._sync.flush()

    def close(self) -> None:
        """Gives the folder up: removed if nothing in it is needed, else left for whoever adopts it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.tend()
        if self.is_drained:
            self._sync.remove(self._segments)
        else:
            self._sync.retire(self._segments[-1])
        drained = self.is_drained
        try:
            self._sync.flush()
        except OSError:
            drained = False  # logged by the sync; the folder stays for the next adopter
        for segment in self._segments:
            segment.close()
        self._owned.release(self._log, remove=drained)

    def _check_room(self) -> None:
        if self._held:
            self.tend()
        if self._held or self._sync.error is not None:
            raise LedgerUnavailable("the attempt cannot be noted: the spool's disk takes no more")
        if self._bytes > self._settings.max_unsent_bytes:
            raise LedgerUnavailable("the attempt cannot be noted: too much is waiting for the ledger")

    def _append(self, kind: Kind, payload: bytes) -> Segment:
        segment = self._segments[-1]
        if segment.size >= self._settings.segment_bytes or segment.broken:
            segment = self._rotate()
        written = segment.append(kind, payload)
        self._bytes += written
        self._appended(written)
        if kind != Kind.ACK:  # one that is lost costs a harmless repetition, so it waits for the next sync
            self._sync.written(segment)
        return segment

    def _rotate(self) -> Segment:
        number = self._segments[-1].number + 1 if self._segments else 1
        segment = Segment.create(self._owned.path, number, self._write)
        if self._segments:
            self._sync.retire(self._segments[-1])
        self._segments.append(segment)
        self._sync.written(segment)
        return segment

    def _store_end(self, entry: Entry, payload: bytes) -> bool:
        try:
            segment = self._append(Kind.END, payload)
        except OSError as error:
            if not self._held:
                self._log.exception("the end of an attempt cannot be stored; kept in memory", error)
            return False
        opened = self._open.pop(entry.entry_id)
        opened.segment.open_bytes -= len(opened.payload)
        position = Position(segment.number, segment.size)
        if len(self._ring) < self._settings.max_entries_in_memory:
            self._ring[self._last] = Ended(entry, position)
        self._last = position
        now = self._now()
        if not self._marks or now - self._marks[-1][1] >= _MARK_INTERVAL_S:
            self._marks.append((self._ended_count, now))
        self._ended_count += 1
        if self._listener is not None:
            self._listener()
        return True

    def _is_past(self, marks: deque[tuple[int, float]]) -> bool:
        return len(marks) > 1 and marks[1][0] <= self._acked_count

    def _read_back(self, after: Position, limit: int) -> list[Ended]:
        """At least one."""
        found: list[Ended] = []
        for segment, record in self._records(after):
            position = Position(segment.number, record.end)
            found.append(Ended(self._decoded(record), position))
            if len(found) == limit or position in self._ring:
                return found
        # Every end behind the last one found was damaged on disk, and has been reported.
        return found or [Ended(None, self._last)]

    def _records(self, after: Position) -> Iterator[tuple[Segment, Record]]:
        for segment in list(self._segments):
            if segment.number >= after.segment:
                offset = after.offset if segment.number == after.segment else 0
                for found in segment.records(offset):
                    if isinstance(found, Gap):
                        self._set_aside(segment, found)
                    elif found.kind == Kind.END:
                        yield segment, found

    def _set_aside(self, segment: Segment, gap: Gap) -> None:
        place = Position(segment.number, gap.start)
        if place not in self._reported:
            self._quarantine.damaged(segment.path, gap.start, gap.end)
            self._reported.add(place)

    def _decoded(self, record: Record) -> Entry | None:
        try:
            return self._codec.decode(Entry, record.payload)
        except MalformedMessageError as error:
            self._quarantine.put(
                entry_id_of(record.payload) or b"", record.payload, f"does not decode: {error}"
            )
            return None

    def _collect(self) -> None:
        """Removes the oldest segments once nothing but begins of running attempts is needed of them."""
        old = self._leading_acked()
        open_bytes = sum(segment.open_bytes for segment in old)
        size = sum(segment.size for segment in old)
        if not old or 2 * open_bytes > size:
            return  # carrying over would write more than it frees
        with suppress(OSError):  # next time
            self._carry_over(old)
            self._segments = self._segments[len(old) :]
            self._bytes -= size
            self._sync.remove(old)

    def _leading_acked(self) -> list[Segment]:
        all_acked = self._acked >= self._last
        return [
            segment for segment in self._segments[:-1] if all_acked or segment.number < self._acked.segment
        ]

    def _carry_over(self, old: list[Segment]) -> None:
        leaving = set(old)
        for entry_id, attempt in self._open.items():
            if attempt.segment in leaving:
                segment = self._append(Kind.BEGIN, attempt.payload)
                attempt.segment.open_bytes -= len(attempt.payload)
                segment.open_bytes += len(attempt.payload)
                self._open[entry_id] = attempt._replace(segment=segment)


# `_segments` leads with the oldest, and segments go only from that side: a begin goes before its end, an end before
# its acknowledgement, so that what is left of a half-removed spool never looks like an attempt that did not end.
