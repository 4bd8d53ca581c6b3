"""The bytes of a spool segment: framed, checksummed records. No I/O.

A record is `marker (4) | payload length u32 | crc32 u32 | kind u8 | payload`, little-endian. The marker is the
segment's salt, random and part of its file name; the checksum starts from it and covers length, kind and payload. So
after damage the next whole record can be found, and text that a client chose (a model's name) cannot pose as one.
BEGIN and END carry an encoded weir.ledger.v1.Entry, ACK the position up to which the ledger has every END.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

MAX_PAYLOAD_BYTES = 64 * 1024
SALT_BYTES = 4
_HEADER = struct.Struct("<4sIIB")
_CHECKED = struct.Struct("<IB")
_POSITION = struct.Struct("<IQ")
ENTRY_ID_BYTES = 16
_ENTRY_ID_TAG = b"\x0a\x10"
"""Field 1 of an Entry, 16 bytes long: how its encoding begins."""


class Kind(IntEnum):
    """What a record says."""

    BEGIN = 1
    END = 2
    ACK = 3


_KINDS = frozenset(int(kind) for kind in Kind)


class Position(NamedTuple):
    """A place in a spool: right behind a record of a segment."""

    segment: int
    offset: int


START = Position(0, 0)
"""Before every record; segments are numbered from 1."""


class Record(NamedTuple):
    """A whole record; `end` is the offset behind it."""

    kind: int
    payload: bytes
    end: int


class Gap(NamedTuple):
    """Bytes that are no record. Torn: a record cut short by the end of the data, as a crash in mid-write leaves it."""

    start: int
    end: int
    torn: bool


def frame(salt: bytes, kind: int, payload: bytes) -> bytes:
    """One record's bytes."""
    length = len(payload)
    return _HEADER.pack(salt, length, _checksum(salt, kind, payload), kind) + payload


def _checksum(salt: bytes, kind: int, payload: bytes) -> int:
    return crc32(payload, crc32(_CHECKED.pack(len(payload), kind), int.from_bytes(salt, "little")))


def scan(data: bytes, salt: bytes) -> Iterator[Record | Gap]:
    """Every record in `data` and every gap between, in order."""
    place = 0
    while place < len(data):
        record = _record_at(data, salt, place)
        if record is None:
            resume = _next_record(data, salt, place + 1)
            end = len(data) if resume is None else resume
            yield Gap(place, end, torn=resume is None and _is_cut_short(data, salt, place))
            place = end
        else:
            yield record
            place = record.end


def _record_at(data: bytes, salt: bytes, place: int) -> Record | None:
    begin = place + _HEADER.size
    if begin > len(data):
        return None
    marker, length, checksum, kind = _HEADER.unpack_from(data, place)
    end = begin + length
    if marker != salt or length > MAX_PAYLOAD_BYTES or end > len(data) or kind not in _KINDS:
        return None
    payload = data[begin:end]
    return Record(kind, payload, end) if _checksum(salt, kind, payload) == checksum else None


def _next_record(data: bytes, salt: bytes, place: int) -> int | None:
    while (place := data.find(salt, place)) >= 0:
        if _record_at(data, salt, place) is not None:
            return place
        place += 1
    return None


def _is_cut_short(data: bytes, salt: bytes, place: int) -> bool:
    rest = len(data) - place
    if rest < _HEADER.size:
        return salt.startswith(data[place : place + len(salt)])
    marker, length, _, _ = _HEADER.unpack_from(data, place)
    return bool(marker == salt and _HEADER.size + length > rest)


def entry_id_of(payload: bytes) -> bytes | None:
    """The entry_id of an encoded Entry without decoding it; None where it does not come first."""
    if payload.startswith(_ENTRY_ID_TAG) and len(payload) >= len(_ENTRY_ID_TAG) + ENTRY_ID_BYTES:
        return payload[len(_ENTRY_ID_TAG) : len(_ENTRY_ID_TAG) + ENTRY_ID_BYTES]
    return None


def pack_position(position: Position) -> bytes:
    """An ACK's payload."""
    return _POSITION.pack(*position)


def unpack_position(payload: bytes) -> Position | None:
    """The position in an ACK; None if it holds none."""
    return Position(*_POSITION.unpack(payload)) if len(payload) == _POSITION.size else None
