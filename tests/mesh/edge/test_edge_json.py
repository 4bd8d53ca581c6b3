"""HTTP/JSON through the edge: bytes as they are, chunks as they come."""

from __future__ import annotations

import base64
import json

import pytest

from tests.mesh.edge.rig import CHAT, Edge
from tests.mesh.edge.stand_in import DO, FIRST, FLOOD_CHUNK_BYTES, LAST, SSE, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

NESTED = "[" * 60 + "]" * 60
BODIES = {
    "unknown fields and odd spacing": b'{ "unheard_of" : {"a": [ ]} ,\n\t"model":"x" }',
    "numbers": b'{"a": 1.0, "b": 1e2, "c": 12345678901234567890, "d": 0, "e": -0.0}',
    "nested 60 deep": f'{{"a": {NESTED}}}'.encode(),
    "unicode": '{"ż": "🐢 \\u0000 \\ud83d\\udc22"}'.encode(),
    "duplicate keys": b'{"a": 1, "a": 2}',
    "not JSON": b"\x00\xff{]",
    "empty": b"",
    "8 MiB": b'"' + b"x" * (8 * 1024 * 1024) + b'"',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_bytes_pass_unchanged_both_ways(running: Edge, script: Script, body: bytes) -> None:
    """The router gets the client's bytes, and the client the router's."""
    answer = await running.chat(body)
    assert (answer.status, answer.body) == (200, body)
    assert script.bodies[-1].data == body
    assert script.bodies[-1].content_type == "application/json"


async def test_query_parameters_do_not_reach_the_body(running: Edge, script: Script) -> None:
    """Unknown parameters are let be, and those named like HttpBody's fields change nothing."""
    stray = f"?api-version=2026-01-01&data={base64.b64encode(b'evil').decode()}&content_type=evil"
    answer = await running.ask("POST", CHAT + stray, b"{}")
    assert (answer.status, answer.body) == (200, b"{}")
    assert script.bodies[-1].data == b"{}"
    assert script.bodies[-1].content_type == "application/json"


async def test_unary_get(running: Edge, script: Script) -> None:
    """A unary RPC answers a GET with its body and nothing of gRPC."""
    answer = await running.ask("GET", "/v1/models")
    assert (answer.status, json.loads(answer.body)) == (200, {"object": "list", "data": []})
    assert answer.headers["content-type"] == "application/json"
    assert not [name for name in answer.headers if name.startswith(("grpc-", "x-envoy-", "server"))]
    assert len(script.seen) == 1


async def test_a_chunk_arrives_before_the_next_is_sent(running: Edge, script: Script) -> None:
    """SSE is passed on at once: the first chunk is here while the router still waits to send the second."""
    async with running.client.post(running.url + CHAT, data=b"{}", headers={DO: "stream"}) as response:
        assert response.status == 200
        assert response.headers["content-type"] == SSE
        assert await response.content.readexactly(len(FIRST)) == FIRST
        assert not script.release.is_set()
        script.release.set()
        assert await response.read() == LAST


async def test_a_stream_may_be_longer_than_the_body_limit(running: Edge, script: Script) -> None:
    """The limit is for whole answers; 24 MiB of stream arrive."""
    chunks = 24 * 1024 * 1024 // FLOOD_CHUNK_BYTES
    answer = await running.chat(x_test_do=f"flood:{chunks}")
    assert (answer.status, len(answer.body)) == (200, chunks * FLOOD_CHUNK_BYTES)
    assert script.sent == chunks


async def test_a_break_in_the_stream_leaks_nothing(running: Edge, script: Script) -> None:
    """After the first chunk an abort ends the answer; telling of it is the router's, by an SSE event."""
    script.release.set()
    answer = await running.chat(x_test_do="break")
    assert (answer.status, answer.body) == (200, FIRST)


@pytest.mark.parametrize("label", ["req-1.a:B_2", "x" * 128])
async def test_the_request_id_passes_both_ways(running: Edge, script: Script, label: str) -> None:
    """What the client sent reaches the router unchanged and comes back."""
    answer = await running.chat(x_request_id=label)
    assert script.seen[-1]["x-request-id"] == label
    assert answer.headers["x-request-id"] == label


async def test_without_a_request_id_the_router_makes_one(running: Edge, script: Script) -> None:
    """Envoy adds none of its own."""
    answer = await running.chat()
    assert "x-request-id" not in script.seen[-1]
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-weir-target"] == "worker"
