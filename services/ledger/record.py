"""Record: takes batches of entries, charges them, makes them durable."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime

from gen.weir.ledger.v1 import RecordRequest
from meshkit.errors import InvalidRequest
from services.ledger.domain.entry import MAX_ENTRIES, ChargedEntry, Fault, Span, sound
from services.ledger.ports import Clock, EntryRefusedError, EntryStore, PriceBook

_SHOWN_ID_BYTES = 32
"""Of an entry_id of the wrong length, in an error; a sound one has 16."""


class Record:
    """One stream's batches in, their numbers out once they are durable.

    An unfit entry refuses its whole batch and ends the stream with InvalidRequest. So that one such entry never
    holds up a sender for ever, the error's details name it: `entry_id` (hex, of what was sent, cut after 32 bytes),
    `index` in the batch, `sequence` of the batch; its `param` is the field. The sender sets that entry aside and
    sends the rest again on a new stream. A fault of the batch itself (a gap, too many entries) names no entry.
    """

    def __init__(self, store: EntryStore, prices: PriceBook, clock: Clock, span: Span) -> None:
        self._store = store
        self._prices = prices
        self._clock = clock
        self._span = span

    def take_prices(self, prices: PriceBook) -> None:
        """From now on entries are charged by these."""
        self._prices = prices

    async def __call__(self, batches: AsyncIterator[RecordRequest]) -> AsyncGenerator[int, None]:
        """Yields the number of each batch when it is durable. Raises InvalidRequest, LedgerUnavailable."""
        expected = 1
        async for batch in batches:
            _check_shape(batch, expected)
            await self._write(batch)
            yield batch.sequence
            expected += 1

    async def _write(self, batch: RecordRequest) -> None:
        now = self._clock()
        charged = [self._charged(batch, index, now) for index in range(len(batch.entries))]
        try:
            await self._store.write(charged)
        except EntryRefusedError as error:
            fault = Fault("", f"cannot be stored: {error.why}")
            raise _unfit(batch, error.index, fault) from error

    def _charged(self, batch: RecordRequest, index: int, now: datetime) -> ChargedEntry:
        fit = sound(batch.entries[index], now, self._span)
        if isinstance(fit, Fault):
            raise _unfit(batch, index, fit)
        return ChargedEntry(fit, self._prices.charge(fit.target, fit.usage, fit.begun_at))


def _check_shape(batch: RecordRequest, expected: int) -> None:
    if batch.sequence != expected:
        raise InvalidRequest(f"sequence is {batch.sequence}, not {expected}", param="sequence")
    if len(batch.entries) > MAX_ENTRIES:
        raise InvalidRequest(
            f"{len(batch.entries)} entries, over the limit of {MAX_ENTRIES}", param="entries"
        )


def _unfit(batch: RecordRequest, index: int, fault: Fault) -> InvalidRequest:
    field = f"entries[{index}].{fault.field}" if fault.field else f"entries[{index}]"
    return InvalidRequest(
        f"{field} {fault.text}",
        param=field,
        details={
            "entry_id": batch.entries[index].entry_id[:_SHOWN_ID_BYTES].hex(),
            "index": str(index),
            "sequence": str(batch.sequence),
        },
    )
