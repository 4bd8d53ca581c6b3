"""Clients that go away and clients that read slowly: what the router notices of them, and what Envoy holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
import psutil
import pytest

from tests.mesh.edge.http2 import CANCEL, DATA, RST_STREAM, http2
from tests.mesh.edge.rig import CHAT, Edge, until
from tests.mesh.edge.stand_in import DO, FIRST, FLOOD_CHUNK_BYTES, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
SOON_S = 1.0
"""How fast a client that is gone must be noticed."""
STEADY_LOOKS = 20
PATHS = [CHAT, "/v1/completions", "/v1/responses"]
Leaves = Callable[[Edge, Script, str, str], Awaitable[None]]


async def closes_http1(running: Edge, script: Script, path: str, do: str) -> None:
    """Closes its connection."""
    lines = f"POST {path} HTTP/1.1\r\nhost: x\r\n{DO}: {do}\r\ncontent-length: 2\r\n\r\n{{}}"
    reader, writer = await asyncio.open_connection(running.host, running.port)
    writer.write(lines.encode())
    await script.reached.wait()
    if do == "stream":
        assert FIRST in await reader.readuntil(b"\n\n\r\n")
    writer.close()
    await writer.wait_closed()


async def resets_http2(running: Edge, script: Script, path: str, do: str) -> None:
    """Resets its stream and keeps the connection, on which the next request is answered."""
    async with http2(running) as connection:
        connection.post(1, b"{}", {":path": path, DO: do})
        await script.reached.wait()
        if do == "stream":
            assert (await connection.until(DATA))[DATA] == FIRST
        connection.send(RST_STREAM, 1, CANCEL)
        async with asyncio.timeout(SOON_S):
            await script.cancelled.wait()
        connection.post(3, b"[3]")
        assert (await connection.until(DATA))[DATA] == b"[3]"


@pytest.mark.parametrize("leaves", [closes_http1, resets_http2])
@pytest.mark.parametrize("do", ["silent", "stream"], ids=["before the first token", "in mid-stream"])
@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_goes(running: Edge, script: Script, path: str, do: str, leaves: Leaves) -> None:
    """The router's handler is cancelled within a second."""
    await leaves(running, script, path, do)
    async with asyncio.timeout(SOON_S):
        await script.cancelled.wait()


async def test_a_client_that_goes_while_it_asks(running: Edge, script: Script) -> None:
    """Half a body: the router is never asked, and others are answered."""
    _, writer = await asyncio.open_connection(running.host, running.port)
    writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n{{".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await running.chat(b"1")).body == b"1"
    assert len(script.seen) == 1


async def steady(script: Script) -> int:
    """How many chunks of a flood left the router, once there are no more."""
    last: list[int] = []

    async def stands() -> bool:
        last.append(script.sent)
        return script.sent > 0 and len(last) >= STEADY_LOOKS and len(set(last[-STEADY_LOOKS:])) == 1

    await until(stands)
    return script.sent


async def test_a_slow_reader_makes_the_router_wait(running: Edge, script: Script) -> None:
    """Of a 256 MiB stream that nobody reads only some MiB leave the router, and others are answered meanwhile."""
    async with (
        aiohttp.ClientSession(read_bufsize=1_024) as client,
        client.post(running.url + CHAT, data=b"{}", headers={DO: "flood:4096"}),
    ):
        held = await steady(script)
        assert held * FLOOD_CHUNK_BYTES < 24 * MIB
        assert (await running.chat(b"1")).body == b"1"
        assert script.sent == held


async def test_a_stream_that_opens_no_window(running: Edge, script: Script) -> None:
    """HTTP/2: the router waits, though other streams of the same connection are answered, and ends with the reset."""
    async with http2(running) as connection:
        connection.post(1, b"{}", {DO: "flood:4096"})
        held = await steady(script)
        assert held * FLOOD_CHUNK_BYTES < 4 * MIB
        connection.post(3, b"{}", {DO: "fail:FORBIDDEN"})
        while (await connection.frame()).stream != 3:
            pass
        connection.send(RST_STREAM, 1, CANCEL)
        assert (await running.chat(b"1")).body == b"1"
        assert await steady(script) - held <= 1


async def test_envoy_holds_little_for_slow_readers(running: Edge, script: Script) -> None:
    """Forty streams of 256 MiB that nobody reads: Envoy's memory grows by less than 1 MiB for each."""
    process = psutil.Process(running.process.pid)
    await running.chat(b"1")
    before = process.memory_info().rss
    async with AsyncExitStack() as stack:
        for _ in range(40):
            reader, writer = await asyncio.open_connection(running.host, running.port, limit=1_024)
            stack.callback(writer.close)
            writer.write(
                f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n{DO}: flood:4096\r\ncontent-length: 2\r\n\r\n{{}}".encode()
            )
            await reader.read(1)
        await steady(script)
        grown = process.memory_info().rss - before
        answer = await running.ask("POST", CHAT, json.dumps("still here").encode())
    assert answer.status == 200
    assert grown < 40 * MIB
