"""What a client may not say, and what it cannot use up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import grpc
import psutil
import pytest

from edge.replies import BY_STATUS
from edge.routes import FORWARDED_FOR, IDENTITY_HEADERS
from edge.settings import EdgeSettings
from tests.mesh.edge.http2 import DATA, HEADERS, RST_STREAM, http2
from tests.mesh.edge.rig import CHAT, FAST, Edge, call, edge, raw
from tests.mesh.edge.stand_in import DO, FIRST, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORGED = dict.fromkeys((*IDENTITY_HEADERS, FORWARDED_FOR), "forged")
CONTROLS = {
    "x-envoy-retry-on": "5xx",
    "x-envoy-max-retries": "9",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-original-path": "/forged",
    "x-envoy-internal": "true",
    "x-envoy-force-trace": "forged",
    "x-envoy-decorator-operation": "forged",
}


def with_limits(**limits: object) -> EdgeSettings:
    """The tests' settings with other limits."""
    return EdgeSettings.model_validate({**FAST.model_dump(), **limits})


async def test_forged_identity_is_stripped_from_json(running: Edge, script: Script) -> None:
    """The router never sees what a client says of its own identity or address; other headers pass."""
    answer = await running.ask(
        "POST", CHAT, b"{}", {**FORGED, "authorization": "Bearer k", "x-weir-on-cut": "hold"}
    )
    assert answer.status == 200
    _assert_stripped(script)
    assert script.seen[-1]["authorization"] == "Bearer k"
    assert script.seen[-1]["x-weir-on-cut"] == "hold"


async def test_forged_identity_is_stripped_from_grpc(channel: grpc.aio.Channel, script: Script) -> None:
    """The same for native calls."""
    await call(channel, "/weir.router.v1.Router/ListModels", **FORGED)
    _assert_stripped(script)


def _assert_stripped(script: Script) -> None:
    (seen,) = script.seen
    assert not set(IDENTITY_HEADERS) & set(seen)
    assert "forged" not in seen[FORWARDED_FOR]


async def test_envoys_own_controls_are_not_for_clients(running: Edge, script: Script) -> None:
    """Not even from loopback: `x-envoy-*` of a client changes nothing and is not passed on."""
    answer = await running.ask("POST", CHAT, b"{}", CONTROLS)
    assert answer.status == 200
    (seen,) = script.seen
    assert seen["x-envoy-original-path"] == CHAT
    assert not (set(CONTROLS) - {"x-envoy-original-path"}) & set(seen)


async def test_admin_is_on_loopback_and_its_own_port(running: Edge) -> None:
    """Envoy listens where it should and nowhere else."""
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for connection in psutil.Process(running.process.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", running.port), ("127.0.0.1", running.admin_port)}


async def test_slow_headers(tmp_path: Path) -> None:
    """A client that sends its headers a byte at a time is sent away with 408."""
    settings = with_limits(request_headers_s=0.3)
    async with edge(tmp_path, ["127.0.0.1:1"], settings, healthy=False) as running:
        answer = await raw(running, b"POST /v1/chat/completions HTTP/1.1\r\nhost:")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert BY_STATUS[408].message.encode() in answer


async def test_slow_body(tmp_path: Path, running: Edge) -> None:
    """The same for a body."""
    settings = with_limits(request_s=0.3)
    lines = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"
    async with edge(tmp_path, running.routers, settings) as other:
        answer = await raw(other, lines)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert BY_STATUS[408].message.encode() in answer


async def test_an_idle_stream_ends(tmp_path: Path, running: Edge, script: Script) -> None:
    """A stream on which nothing moves is ended, and the router's handler is cancelled."""
    async with edge(tmp_path, running.routers, with_limits(stream_idle_s=0.5)) as other:
        with pytest.raises(aiohttp.ClientPayloadError):
            await other.chat(x_test_do="stream")
    await script.cancelled.wait()


async def test_a_silent_router_is_a_timeout(tmp_path: Path, running: Edge, script: Script) -> None:
    """Before the first byte the same ends as 504."""
    async with edge(tmp_path, running.routers, with_limits(stream_idle_s=0.5)) as other:
        answer = await other.chat(x_test_do="silent")
    assert (answer.status, answer.error["code"]) == (504, "timeout")
    await script.cancelled.wait()


async def test_a_body_over_the_limit_in_http2(tmp_path: Path, running: Edge) -> None:
    """The 413 and its body arrive while the client still sends; then the stream is reset without an error."""
    settings = with_limits(max_body_bytes=2_048)
    async with edge(tmp_path, running.routers, settings) as other, http2(other) as connection:
        connection.post(1, b"x" * 4_096, whole=False)
        received = await connection.until(RST_STREAM)
    assert b"413" in received[HEADERS]
    assert b"request_too_large" in received[DATA]
    assert received[RST_STREAM] == bytes(4)


async def test_connections_over_the_limit_are_closed(tmp_path: Path, running: Edge) -> None:
    """One more than allowed is closed at once; those before it are served."""
    async with edge(tmp_path, running.routers, with_limits(max_connections=2)) as other:
        # The rig's own client holds the first.
        held = await asyncio.open_connection(other.host, other.port)
        reader, writer = await asyncio.open_connection(other.host, other.port)
        try:
            assert await reader.read() == b""
            assert (await other.chat(b"1")).body == b"1"
        finally:
            for each in (held[1], writer):
                each.close()


async def test_many_streams_at_once(running: Edge, script: Script) -> None:
    """A hundred streams wait on one worker without holding each other up."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

        async def first_chunk() -> aiohttp.ClientResponse:
            response = await client.post(running.url + CHAT, data=b"{}", headers={DO: "stream"})
            assert await response.content.readexactly(len(FIRST)) == FIRST
            return response

        responses = await asyncio.gather(*(first_chunk() for _ in range(100)))
        script.release.set()
        ends = await asyncio.gather(*(response.read() for response in responses))
    assert all(end.endswith(b"[DONE]\n\n") for end in ends)
