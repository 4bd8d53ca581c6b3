"""What the supervisor knows of one part of the mesh: its program, its needs, how it proves itself, how it ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class NotReady(Exception):
    """The part does not serve yet; the text says why."""


class CannotStart(Exception):
    """The part cannot be started at all, and trying again does not help; the text says what to do."""


class State(StrEnum):
    """Where a part is in its life."""

    WAITING = "waiting"  # for the parts it depends on
    STARTING = "starting"
    HEALTHY = "healthy"
    CRASHED = "crashed"  # started again after a pause
    STOPPING = "stopping"
    STOPPED = "stopped"


async def _nothing() -> None:
    """The hook of a part that needs none."""


async def _forever() -> str:
    """The watch over a part that nothing but its end makes start again."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets the event")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process and all that is needed to keep it running."""

    name: str
    argv: tuple[str, ...] | Callable[[], tuple[str, ...]] = field(repr=False)
    """The program and its arguments; a function where they are known only after `before_start`."""
    environment: Mapping[str, str] = field(repr=False)
    """Complete: nothing is inherited. It may hold secrets."""
    directory: Path
    probe: Callable[[], Awaitable[None]] = field(repr=False)
    """Returns if the part serves now; raises NotReady."""
    depends_on: frozenset[str] = frozenset()
    """Parts that must be healthy before it starts, and that end after it."""
    outlived_by: frozenset[str] = frozenset()
    """Further parts that end after it, though it starts without them."""
    address: str = ""
    """Where it listens, for humans."""
    note: str = ""
    ready_within_s: float = 30.0
    """From its start; a part that is not ready by then counts as crashed."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float = 10.0
    """From the stop signal; then it is killed."""
    death_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends it when the supervisor dies."""
    uid: int | None = None
    gid: int | None = None
    fatal_statuses: frozenset[int] = frozenset({2})
    """Exit statuses that mean that starting again does not help (2: its settings are wrong)."""
    before_start: Callable[[], Awaitable[None]] = field(default=_nothing, repr=False)
    """Run before each start: sets up, and removes what a hard exit left. May raise CannotStart. Cancelled at a stop."""
    after_end: Callable[[], Awaitable[None]] = field(default=_nothing, repr=False)
    """Run after the last end: removes what must not be left."""
    drain: Callable[[], Awaitable[None]] = field(default=_nothing, repr=False)
    """Run before the stop signal; it bounds its own time."""
    watch: Callable[[], Coroutine[Any, Any, str]] = field(default=_forever, repr=False)
    """Runs while the part is healthy; returns the reason if it must be started again though its process lives."""
