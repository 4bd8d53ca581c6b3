"""Carries ended attempts from spools to the ledger, in order, until the ledger says that it has them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Protocol

from gen.weir.ledger.v1 import Entry, RecordRequest
from gen.weir.ledger.v1.service import LedgerClient
from meshkit.codec import Codec
from meshkit.errors import InvalidRequest, UpstreamError, UpstreamTimeout
from meshkit.telemetry import Logger
from services.router.adapters.spool import Ended
from services.router.adapters.spool_format import Position
from services.router.adapters.spool_quarantine import Quarantine
from services.router.spool_settings import FeedSettings


class Source(Protocol):
    """A spool, as the feed sees it; adapters/spool.py says more."""

    @property
    def acked(self) -> Position:
        """The ledger has every end up to here."""

    @property
    def last_end(self) -> Position:
        """Behind the newest end."""

    @property
    def is_drained(self) -> bool:
        """Whether nothing in it is needed any more."""

    def listen(self, listener: Callable[[], None] | None) -> None:
        """`listener` is called at every end."""

    def read(self, after: Position, limit: int) -> list[Ended]:
        """Ended attempts behind `after`, in order. Raises OSError."""

    def acknowledge(self, position: Position, count: int) -> None:
        """The ledger has the next `count` ends, up to `position`."""

    def tend(self) -> None:
        """Stores what the disk refused before."""

    def close(self) -> None:
        """Gives it up; removes it if it is drained."""


@dataclass
class _Batch:
    """Sent, not yet acknowledged."""

    source: Source
    position: Position
    count: int
    """Ends that it settles: its entries, and those passed over."""
    entries: list[Entry]
    sequence: int = 0


@dataclass
class _Stream:
    """One life of the Record stream. A new one begins at what each source has acknowledged."""

    cursors: dict[Source, Position] = field(default_factory=dict)
    """How far each source was read."""
    in_flight: deque[_Batch] = field(default_factory=deque)
    sequence: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)
    full: asyncio.Event = field(default_factory=asyncio.Event)
    waits_for_entries: bool = False
    fresh: int = 0
    """Ends since the last batch was made."""
    is_behind: bool = True
    """Whether there may be a whole batch to read, so that waiting for more makes no sense."""
    watch: asyncio.Timeout | None = None
    failure: Exception | None = None
    """What went wrong while a batch was made."""


class LedgerFeed:
    """Feeds one ledger from any number of spools (services.router.adopt_spools.Feed).

    Args:
        random: jitter of the pauses between attempts to reconnect.
    """

    def __init__(
        self,
        client: LedgerClient,
        settings: FeedSettings,
        codec: Codec,
        quarantine: Quarantine,
        log: Logger,
        random: Random,
    ) -> None:
        self._client = client
        self._settings = settings
        self._codec = codec
        self._quarantine = quarantine
        self._log = log
        self._random = random
        self._sources: list[Source] = []
        self._adopted: list[Source] = []
        self._turn = 0
        self._stream = _Stream()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()
        self._refused: set[bytes] = set()
        """Ids in quarantine that may be read again before their place is acknowledged."""
        self._careful = 0
        """Entries still to be sent one by one, because one among them was refused without being named."""
        self._is_down = False

    async def start(self, own: Source) -> None:
        """Begins to send what is in `own`; it stays the caller's to close."""
        self._add(own)
        self._tasks = [
            asyncio.create_task(self._run(), name="ledger-feed"),
            asyncio.create_task(self._tend(), name="ledger-feed-tend"),
        ]

    def adopt(self, spool: Source) -> None:
        """Sends what is unsent in `spool`, then closes it."""
        self._adopted.append(spool)
        self._add(spool)

    async def stop(self, limit: timedelta) -> bool:
        """Sends what is left if the ledger takes it within `limit`; whether it did. Adopted spools are closed.

        Idempotent.
        """
        self._stopping.set()
        self._kick()
        if self._tasks and not self._is_settled():
            self._settled.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), limit.total_seconds())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for source in self._sources:
            source.listen(None)
        for source in self._adopted:
            source.close()
        return self._is_settled()

    def _add(self, source: Source) -> None:
        self._sources.append(source)
        source.listen(self._ended)
        self._stream.is_behind = True
        self._kick()

    def _ended(self) -> None:
        """Called at every end: cheap while nobody waits."""
        stream = self._stream
        stream.fresh += 1
        if stream.waits_for_entries:
            stream.more.set()
        if stream.fresh >= self._settings.flush_records:
            stream.full.set()

    def _kick(self) -> None:
        self._stream.more.set()
        self._stream.full.set()

    def _is_settled(self) -> bool:
        return all(source.acked >= source.last_end for source in self._sources)

    # The stream, again and again.

    async def _run(self) -> None:
        least_s, most_s = self._settings.retry_min_ms / 1_000, self._settings.retry_max_ms / 1_000
        pause_s = least_s
        while True:
            stream = self._stream = _Stream()
            error = await self._one_stream(stream)
            if self._sets_aside(stream, error):
                continue
            if not self._is_down:
                self._log.warning(
                    "the stream to the ledger broke; entries wait in the spool", error=str(error)
                )
                self._is_down = True
            if stream.sequence > len(stream.in_flight):
                pause_s = least_s  # something was acknowledged
            await self._pause(pause_s * self._random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, most_s)

    async def _one_stream(self, stream: _Stream) -> Exception:
        """Runs one stream to its end; returns why it ended."""
        try:
            async with (
                asyncio.timeout(None) as stream.watch,
                aclosing(self._responses(stream)) as responses,
            ):
                async for acked_through in responses:
                    self._acknowledge(stream, acked_through)
        except TimeoutError:
            return UpstreamTimeout("the ledger acknowledges nothing")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # grpc shows a call that its server cancelled as if this task had been cancelled.
            return stream.failure or UpstreamError("the ledger cancelled the stream")
        except Exception as error:  # noqa: BLE001 - a servicer in this process may raise anything; nothing may end the feed
            return error
        return stream.failure or UpstreamError("the ledger ended the stream")

    async def _responses(self, stream: _Stream) -> AsyncGenerator[int, None]:
        async with aclosing(self._client.record(self._requests(stream))) as responses:
            async for response in responses:
                yield response.acked_through

    async def _pause(self, seconds: float) -> None:
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, self._settings.retry_min_ms / 1_000))
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _requests(self, stream: _Stream) -> AsyncIterator[RecordRequest]:
        try:
            while True:
                await self._until_ready(stream)
                batch = self._next_batch(stream)
                if batch is not None:
                    yield self._sent(stream, batch)
        except Exception as error:  # noqa: BLE001 - grpc would swallow it; the stream ends, and `_run` sees why
            stream.failure = error

    async def _until_ready(self, stream: _Stream) -> None:
        while not (self._has_room(stream) and self._has_unsent(stream)):
            stream.more.clear()
            stream.waits_for_entries = self._has_room(stream)
            await stream.more.wait()
        stream.waits_for_entries = False
        delay_s = self._settings.flush_delay_ms / 1_000
        if delay_s and not stream.is_behind and not self._stopping.is_set():
            stream.full.clear()
            if stream.fresh < self._settings.flush_records:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stream.full.wait(), delay_s)

    def _has_room(self, stream: _Stream) -> bool:
        return len(stream.in_flight) < (1 if self._careful else self._settings.max_in_flight_batches)

    def _has_unsent(self, stream: _Stream) -> bool:
        return any(self._cursor(stream, source) < source.last_end for source in self._sources)

    def _cursor(self, stream: _Stream, source: Source) -> Position:
        return stream.cursors.get(source, source.acked)

    def _next_batch(self, stream: _Stream) -> _Batch | None:
        """From the sources in turn. None if all that was read had to be passed over."""
        stream.fresh = 0
        limit = 1 if self._careful else self._settings.max_batch_records
        for _ in range(len(self._sources)):
            self._turn = (self._turn + 1) % len(self._sources)
            source = self._sources[self._turn]
            found = source.read(self._cursor(stream, source), limit)
            if found:
                stream.is_behind = len(found) == limit or len(self._sources) > 1
                return self._batch(stream, source, found)
        stream.is_behind = False
        return None

    def _batch(self, stream: _Stream, source: Source, found: list[Ended]) -> _Batch | None:
        position = stream.cursors[source] = found[-1].position
        entries = [ended.entry for ended in found if ended.entry is not None]
        if self._refused:
            entries = [entry for entry in entries if entry.entry_id not in self._refused]
        batch = _Batch(source, position, len(found), entries)
        if entries:
            return batch
        self._pass_over(stream, batch)
        return None

    def _pass_over(self, stream: _Stream, batch: _Batch) -> None:
        """Settles ends of which nothing is to be sent, together with what was sent before them."""
        for earlier in reversed(stream.in_flight):
            if earlier.source is batch.source:
                earlier.position = batch.position
                earlier.count += batch.count
                return
        self._settle(batch)

    def _sent(self, stream: _Stream, batch: _Batch) -> RecordRequest:
        stream.sequence += 1
        batch.sequence = stream.sequence
        if not stream.in_flight:
            self._wait_for_ack(stream, waiting=True)
        stream.in_flight.append(batch)
        return RecordRequest(sequence=batch.sequence, entries=batch.entries)

    def _acknowledge(self, stream: _Stream, acked_through: int) -> None:
        if self._is_down:
            self._log.info("the ledger takes entries again")
            self._is_down = False
        while stream.in_flight and stream.in_flight[0].sequence <= acked_through:
            batch = stream.in_flight.popleft()
            self._careful = max(0, self._careful - len(batch.entries))
            self._settle(batch)
        self._wait_for_ack(stream, waiting=bool(stream.in_flight))
        stream.more.set()

    def _settle(self, batch: _Batch) -> None:
        batch.source.acknowledge(batch.position, batch.count)
        if self._is_settled():
            self._refused.clear()
            self._settled.set()

    def _wait_for_ack(self, stream: _Stream, *, waiting: bool) -> None:
        if stream.watch is not None:
            now = asyncio.get_running_loop().time()
            stream.watch.reschedule(now + self._settings.ack_timeout_s if waiting else None)

    # Entries that the ledger refuses.

    def _sets_aside(self, stream: _Stream, error: Exception) -> bool:
        """Whether an entry was set aside because of `error`, so that the rest can be sent again at once."""
        if not isinstance(error, InvalidRequest) or not stream.in_flight:
            return False
        sent = [entry for batch in stream.in_flight for entry in batch.entries]
        named = error.details.get("entry_id")
        poison = [entry for entry in sent if entry.entry_id.hex() == named] or (
            sent if len(sent) == 1 else []
        )
        if not poison:
            self._careful = len(sent)
            self._log.warning(
                "the ledger refuses a batch and names no entry; sending one by one", error=str(error)
            )
            return False
        try:
            self._quarantine.put(poison[0].entry_id, self._codec.encode(poison[0]), error.message)
        except OSError as full:
            self._log.exception("a refused entry cannot be set aside", full)
            return False
        self._refused.add(poison[0].entry_id)
        return True

    # What is done now and then.

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tend_interval_s)
            for source in list(self._sources):
                source.tend()
            for source in [source for source in self._adopted if source.is_drained]:
                source.listen(None)
                self._adopted.remove(source)
                self._sources.remove(source)
                await self._close(source)

    async def _close(self, source: Source) -> None:
        try:
            await asyncio.to_thread(source.close)
        except Exception as error:  # noqa: BLE001 - one folder that cannot be removed must not end the housekeeping
            self._log.exception("an adopted spool cannot be closed", error)
