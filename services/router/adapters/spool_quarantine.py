"""What can never reach the ledger, set aside for a human: one JSON object a line, never removed by Weir."""

from __future__ import annotations

import os
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, Counter

from meshkit.telemetry import Logger

FILE_NAME: Final = "quarantine.jsonl"
_MAX_DAMAGED_BYTES = 1024 * 1024


class Quarantine:
    """Appends to `<folder>/quarantine.jsonl`, which all workers share.

    A line has `at`, `reason`, `entry_id` (hex, empty if not known) and `data`: the bytes in base64, an encoded
    weir.ledger.v1.Entry unless the reason says that they are damaged.
    """

    def __init__(self, folder: Path, registry: CollectorRegistry, log: Logger) -> None:
        self.path = folder / FILE_NAME
        self._log = log
        self._count = Counter(
            "weir_router_spool_quarantined", "Entries and damaged pieces set aside.", registry=registry
        )

    def damaged(self, segment: Path, start: int, end: int) -> None:
        """Sets a damaged piece of a segment aside, at most its first MiB. Raises OSError."""
        with segment.open("rb") as file:
            file.seek(start)
            data = file.read(min(end - start, _MAX_DAMAGED_BYTES))
        self.put(b"", data, f"damaged: bytes {start} to {end} of {segment.parent.name}/{segment.name}")

    def put(self, entry_id: bytes, data: bytes, reason: str) -> None:
        """Sets `data` aside, durably. Raises OSError."""
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "reason": reason,
            "entry_id": entry_id.hex(),
            "data": b64encode(data).decode(),
        }
        fd = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_line(fd, msgspec.json.encode(line) + b"\n")
        finally:
            os.close(fd)
        self._count.inc()
        self._log.warning(
            "not for the ledger: set aside in the quarantine file",
            entry_id=entry_id.hex(), reason=reason, file=str(self.path),
        )  # fmt: skip


def _write_line(fd: int, line: bytes) -> None:
    written = os.write(fd, line)
    if written != len(line):
        os.write(fd, b"\n")  # so that the next line stays whole
        raise OSError("the quarantine file takes no more")
    os.fdatasync(fd)
