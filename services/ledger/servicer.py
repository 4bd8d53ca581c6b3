"""weir.ledger.v1.Ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from gen.rpc import RpcContext
from gen.weir.ledger.v1 import RecordRequest, RecordResponse, UsageRequest, UsageResponse
from gen.weir.ledger.v1.service import LedgerServicer
from services.ledger.recognise import Recognise
from services.ledger.record import Record
from services.ledger.stopping import Stopping
from services.ledger.usage import Usage

_AUTHORIZATION = "authorization"


class Ledger(LedgerServicer):
    """One method for each RPC."""

    def __init__(self, record: Record, usage: Usage, recognise: Recognise, stopping: Stopping) -> None:
        self._record = record
        self._usage = usage
        self._recognise = recognise
        self._stopping = stopping

    async def record(
        self,
        requests: AsyncIterator[RecordRequest],
        context: RpcContext,
    ) -> AsyncIterator[RecordResponse]:
        """Takes batches, answers how far they are durable."""
        async with (
            aclosing(self._stopping.until(requests)) as batches,
            aclosing(self._record(batches)) as durable,
        ):
            async for sequence in durable:
                yield RecordResponse(acked_through=sequence)

    async def usage(
        self,
        request: UsageRequest,
        context: RpcContext,
    ) -> UsageResponse:
        """Sums entries of a span of time, as far as the caller's key may see them."""
        reader = await self._recognise(context.metadata.get(_AUTHORIZATION), context.peer.address)
        return await self._usage(request, reader)
