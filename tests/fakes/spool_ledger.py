"""A ledger in memory that can be told to misbehave, and builders of entries and spools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prometheus_client import CollectorRegistry

from gen.rpc import RpcContext
from gen.weir.ledger.v1 import Entry, Outcome, RecordRequest, RecordResponse, UsageRequest, UsageResponse
from gen.weir.ledger.v1.service import LedgerServicer
from gen.weir.type.v1 import Locality, Principal, Target, Usage
from meshkit.codec import mesh_codec
from meshkit.errors import InvalidRequest, LedgerUnavailable
from meshkit.ids import uuid7
from meshkit.telemetry import Logger
from services.router.adapters.spools import Spools
from services.router.spool_settings import SpoolSettings

Key = tuple[datetime | None, bytes]


class FakeLedger(LedgerServicer):
    """Keeps entries by (begun_at, entry_id), the first of a key; counts how often each was sent.

    `down` refuses every stream. `lose_acks` breaks the stream that many times between a batch and its
    acknowledgement. `poison` ids are refused as the real ledger does, `mute_poison` without naming them.
    `withhold` keeps acknowledgements back until it is set.
    """

    def __init__(self) -> None:
        self.rows: dict[Key, Entry] = {}
        self.sent: dict[Key, int] = {}
        self.batches: list[int] = []
        self.streams = 0
        self.down = False
        self.lose_acks = 0
        self.stale_acks = False
        """Repeats an older acknowledgement after each."""
        self.poison: set[bytes] = set()
        self.mute_poison: set[bytes] = set()
        self.withhold: asyncio.Event | None = None
        self._changed = asyncio.Event()

    async def record(
        self, requests: AsyncIterator[RecordRequest], context: RpcContext
    ) -> AsyncIterator[RecordResponse]:
        """As the contract says, but for the faults asked for."""
        del context
        self.streams += 1
        expected = 1
        if self.down:
            raise LedgerUnavailable("down")
        async for request in requests:
            if request.sequence != expected:
                raise InvalidRequest(f"sequence is {request.sequence}, not {expected}", param="sequence")
            expected += 1
            self._store(request.entries)
            if self.lose_acks:
                self.lose_acks -= 1
                raise LedgerUnavailable("the connection broke after the commit")
            if self.withhold is not None:
                await self.withhold.wait()
            yield RecordResponse(acked_through=request.sequence)
            if self.stale_acks and request.sequence > 1:
                yield RecordResponse(acked_through=request.sequence - 1)

    async def usage(self, request: UsageRequest, context: RpcContext) -> UsageResponse:
        """Not asked for by the router."""
        raise NotImplementedError

    async def until(self, condition: Callable[[], bool], limit_s: float = 20.0) -> None:
        """Returns when `condition` holds; it is asked after every batch and at least every 10 ms."""
        async with asyncio.timeout(limit_s):
            while not condition():
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.01)
                except TimeoutError:
                    continue

    def _store(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.entry_id in self.mute_poison:
                raise InvalidRequest("something is wrong in here")
            if entry.entry_id in self.poison:
                raise InvalidRequest("entries[0] is unfit", details={"entry_id": entry.entry_id.hex()})
        for entry in entries:
            key = (entry.begun_at, entry.entry_id)
            self.rows.setdefault(key, entry)
            self.sent[key] = self.sent.get(key, 0) + 1
        self.batches.append(len(entries))
        self._changed.set()


def begun(number: int = 0, entry_id: UUID | None = None) -> Entry:
    """A begin's entry, with a reservation of 1,000 output tokens."""
    return Entry(
        entry_id=(entry_id or uuid7()).bytes,
        begun_at=datetime(2026, 9, 1, tzinfo=UTC) + timedelta(microseconds=number),
        request_id=f"req_{number}",
        attempt=1,
        principal=Principal(key_id="k1", org="acme", team="ml"),
        model_asked="gpt-4",
        target=Target(name="local", locality=Locality.LOCAL, provider="triton", model="smollm2"),
        route_reason="alias gpt-4",
        usage=Usage(input_tokens=30, output_tokens=1_000, estimated=True),
    )


def ended(entry: Entry, outcome: Outcome = Outcome.OK) -> Entry:
    """How `entry` ended: 50 tokens in 1.2 s."""
    return Entry(
        entry_id=entry.entry_id,
        begun_at=entry.begun_at,
        request_id=entry.request_id,
        attempt=entry.attempt,
        principal=entry.principal,
        model_asked=entry.model_asked,
        target=entry.target,
        route_reason=entry.route_reason,
        outcome=outcome,
        usage=Usage(input_tokens=30, output_tokens=50),
        latency=timedelta(seconds=1.2),
        first_token=timedelta(seconds=0.2),
    )


def spools(
    folder: Path,
    settings: SpoolSettings | None = None,
    write: Callable[[int, bytes], int] | None = None,
    registry: CollectorRegistry | None = None,
) -> Spools:
    """All spools of one process, as a bootstrap makes them; logs go nowhere."""
    extra = {} if write is None else {"write": write}
    return Spools(
        folder, settings or SpoolSettings(), mesh_codec(), registry or CollectorRegistry(), quiet(), **extra
    )


def quiet() -> Logger:
    """A logger whose lines nobody reads."""
    return Logger("test", fd=-1)
