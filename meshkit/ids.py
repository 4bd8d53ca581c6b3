"""Identifiers: UUIDv7 for what is stored, and the label of a request."""

from __future__ import annotations

import os
import re
import time
from uuid import UUID

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def uuid7() -> UUID:
    """A UUID that sorts by its time of making (RFC 9562, millisecond precision)."""
    millis = time.time_ns() // 1_000_000
    value = (millis << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return UUID(int=value)


def request_id(offered: str | bytes | None) -> str:
    """The caller's own label if it is 1 to 128 characters of `A-Za-z0-9._:-`, else a new one."""
    if isinstance(offered, str) and _SANE_REQUEST_ID.fullmatch(offered):
        return offered
    return f"req_{uuid7().hex}"
