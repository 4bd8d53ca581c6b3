"""Whether the clocks can be trusted: keys, tokens, certificates and the ledger's days live by them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from weirctl.doctor_finding import Finding, fault, ok, warning

_WHAT = "clocks"
_NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
"""Older than this release no clock can be."""
_BETWEEN_WARNING, _BETWEEN_FAULT = timedelta(seconds=1), timedelta(seconds=30)
"""30 s is how far a token's times may be off."""
_MOVED = timedelta(seconds=0.5)
_STEPPED = timedelta(seconds=60)
"""From the start of `weir up` to its lock takes a busy machine some seconds."""
_SYNC = "have this machine's clock kept by NTP (`timedatectl set-ntp true`)"
_CONNECT_S = 5


@dataclass(frozen=True)
class Clocks:
    """Readings. Seconds since 1970 on the wall clock, any seconds that never go back on the other."""

    begun_wall_s: float
    """When the doctor began."""
    begun_monotonic_s: float
    wall_s: float
    """When it had looked at all else."""
    monotonic_s: float
    database_ahead: timedelta | None = None
    """How far PostgreSQL's clock is ahead of this machine's, at least; negative where behind; None where unknown."""
    database_fault: str = ""
    """Why it is unknown, where that is a fault."""
    stepped: timedelta | None = None
    """How far the wall clock was moved since `weir up` began; None while it is down."""


def clocks(read: Clocks) -> list[Finding]:
    """What the readings say."""
    return list(_faults(read)) or [ok(_WHAT, _well(read))]


def _faults(read: Clocks) -> Iterator[Finding]:
    if read.wall_s < _NOT_BEFORE.timestamp():
        yield fault(
            _WHAT, f"this machine believes it is {datetime.fromtimestamp(read.wall_s, UTC):%Y-%m-%d}", _SYNC
        )
    moved = (read.wall_s - read.begun_wall_s) - (read.monotonic_s - read.begun_monotonic_s)
    if abs(moved) > _MOVED.total_seconds():
        yield warning(_WHAT, f"the wall clock was moved by {moved:+.1f} s while the doctor looked", _SYNC)
    if read.stepped is not None and abs(read.stepped) > _STEPPED:
        text = f"the wall clock was moved by {read.stepped.total_seconds():+.0f} s since Weir started"
        yield warning(_WHAT, text, f"{_SYNC}; keys and tokens end by it")
    if read.database_fault:
        yield fault(
            _WHAT, f"PostgreSQL cannot be asked: {read.database_fault}", "see postgres_dsn, or `weir status`"
        )
    elif read.database_ahead is not None and abs(read.database_ahead) > _BETWEEN_WARNING:
        say = fault if abs(read.database_ahead) > _BETWEEN_FAULT else warning
        text = f"PostgreSQL's clock is off by {read.database_ahead.total_seconds():+.1f} s"
        yield say(_WHAT, text, "have both machines' clocks kept by NTP")


def _well(read: Clocks) -> str:
    if read.database_ahead is None:
        return "this machine's runs evenly; PostgreSQL is down, so not compared"
    return "this machine's runs evenly, and agrees with PostgreSQL's"


def database_ahead(dsn: str) -> timedelta:
    """How far the database's clock is ahead, less what the question took. Blocking. Raises psycopg.Error."""
    with psycopg.connect(dsn, connect_timeout=_CONNECT_S, autocommit=True) as connection:
        before = datetime.now(UTC)
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        after = datetime.now(UTC)
    there: datetime = before if row is None else row[0]
    if before <= there <= after:
        return timedelta()
    return there - after if there > after else there - before


def stepped_since(pid: int, marked: Path) -> timedelta | None:
    """How far the wall clock was moved since process `pid` began, which wrote the file `marked` soon after.

    Its age is known to the kernel by a clock that is never set. None where it or the file is gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        begun_wall_s = marked.stat().st_mtime
    except OSError:
        return None
    ticks_per_s = 100  # USER_HZ, on every Linux that Python runs on
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / ticks_per_s
    return timedelta(seconds=time.time() - begun_wall_s - age_s)
