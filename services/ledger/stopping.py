"""Ends streams when the ledger stops: a sender keeps its stream open for as long as it lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

from meshkit.errors import LedgerUnavailable

ItemT = TypeVar("ItemT")


class Stopping:
    """Whether the ledger is about to stop."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()

    def begin(self) -> None:
        """From now on every stream ends instead of waiting for its next item."""
        self._begun.set()

    async def until(self, items: AsyncIterator[ItemT]) -> AsyncGenerator[ItemT, None]:
        """The items; once the stop has begun raises LedgerUnavailable in place of the next one."""
        stop = asyncio.create_task(self._begun.wait())
        coming: asyncio.Task[ItemT] = asyncio.create_task(_next(items))
        try:
            while True:
                await asyncio.wait((coming, stop), return_when=asyncio.FIRST_COMPLETED)
                if self._begun.is_set():
                    raise LedgerUnavailable("the ledger is stopping; send again what it did not acknowledge")
                yield coming.result()
                coming = asyncio.create_task(_next(items))
        except StopAsyncIteration:
            return
        finally:
            stop.cancel()
            coming.cancel()
            # Until both have ended: whoever closes `items` next must not find it running.
            await asyncio.wait((coming, stop))


async def _next(items: AsyncIterator[ItemT]) -> ItemT:
    return await anext(items)
