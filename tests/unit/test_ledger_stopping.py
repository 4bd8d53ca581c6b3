"""How streams end when the ledger stops."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from meshkit.errors import LedgerUnavailable
from services.ledger.stopping import Stopping


async def _items(queue: "asyncio.Queue[int | None]") -> AsyncIterator[int]:
    while (item := await queue.get()) is not None:
        yield item


async def test_items_pass_while_nothing_stops() -> None:
    """Every item, in order, until the sender ends the stream."""
    queue: asyncio.Queue[int | None] = asyncio.Queue()
    for item in (1, 2, 3, None):
        queue.put_nowait(item)
    assert [item async for item in Stopping().until(_items(queue))] == [1, 2, 3]


async def test_a_waiting_stream_ends_at_once() -> None:
    """A sender that has nothing to send is told to come again."""
    queue: asyncio.Queue[int | None] = asyncio.Queue()
    stopping = Stopping()
    stream = stopping.until(_items(queue))
    queue.put_nowait(1)
    assert await anext(stream) == 1
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert not waiting.done()
    stopping.begin()
    with pytest.raises(LedgerUnavailable):
        await asyncio.wait_for(waiting, 10)


async def test_an_error_of_the_sender_passes() -> None:
    """A malformed batch is told of, not swallowed."""

    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ValueError("malformed")

    stream = Stopping().until(broken())
    assert await anext(stream) == 1
    with pytest.raises(ValueError, match="malformed"):
        await anext(stream)


async def test_nothing_is_left_running() -> None:
    """A stream that its reader leaves early leaves no task behind."""
    queue: asyncio.Queue[int | None] = asyncio.Queue()
    stream = Stopping().until(_items(queue))
    queue.put_nowait(1)
    assert await anext(stream) == 1
    await stream.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
