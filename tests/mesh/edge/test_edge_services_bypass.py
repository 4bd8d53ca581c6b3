"""No path skips the guard: whatever shape a request has, without a good key nothing of it reaches the service."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.mesh.edge.guarded import Guarded, guarded
from tests.mesh.edge.http2 import END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Http2, http2, literal
from tests.mesh.edge.rig import LIMIT_S, raw
from tests.mesh.edge.test_edge_services import database
from weirctl import postgres_server as postgres

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = "a" * 40_000
GUARDED = {
    "plain": "/docs/x",
    "root": "/docs/",
    "two slashes": "//docs/x",
    "many slashes": "////docs////x",
    "dots inside": "/docs/../docs/x",
    "dots from the gateway": "/v1/../docs/x",
    "dots from health": "/healthz/../docs/x",
    "dots from a service for all": "/open/../docs/x",
    "encoded dots": "/open/%2e%2e/docs/x",
    "half encoded dots": "/v1/.%2E/docs/x",
    "encoded slash": "/docs%2fx",
    "encoded slash and dots": "/v1/..%2fdocs/x",
    "encoded back from a service for all": "/open/%2e%2e%2fdocs%2fx",
    "encoded backslash": "/v1/..%5cdocs%5cx",
    "backslash": "/v1/..\\docs\\x",
    "encoded letter": "/%64ocs/x",
    "dot": "/./docs/./x",
    "semicolon behind": "/docs/;/../x",
    "semicolon": "/docs/x;.json",
    "semicolon on dots": "/docs/..;/docs/x",
    "question mark": "/docs/?/v1/models",
    "key in the query": "/docs/x?authorization=Bearer%20{token}&access_token={token}",
    "encoded NUL": "/docs/%00x",
    "encoded line end": "/docs/%0d%0aauthorization:%20Bearer%20{token}",
    "fragment": "/docs/x#/v1/models",
    "very long": f"/docs/{LONG}",
    "absolute form": "http://localhost/docs/x",
    "absolute form of another host": "http://127.0.0.1:1/docs/x",
    "absolute form with a user": "http://user:{token}@localhost/docs/x",
    "absolute form, https": "https://localhost/docs/x",
    "absolute form with dots": "http://localhost/v1/../docs/x",
}
"""Targets that name the guarded service, or could be taken to; `{token}` stands for a good key."""
NOT_THERE = {
    "upper case": "/DOCS/x",
    "no slash": "/docs",
    "semicolon before": "/docs;/x",
    "twice": "/%2564ocs/x",
}
"""Targets that are nobody's."""
HEADS = {
    "trailing dot in the host": "GET /docs/x HTTP/1.1\r\nhost: localhost.\r\n",
    "host of the service": "GET /docs/x HTTP/1.1\r\nhost: {upstream}\r\n",
    "host with a path": "GET /docs/x HTTP/1.1\r\nhost: localhost/v1/\r\n",
    "HTTP/1.0": "GET /docs/x HTTP/1.0\r\n",
    "OPTIONS": "OPTIONS /docs/x HTTP/1.1\r\nhost: x\r\norigin: http://e\r\naccess-control-request-method: GET\r\n",
    "TRACE": "TRACE /docs/x HTTP/1.1\r\nhost: x\r\n",
    "HEAD": "HEAD /docs/x HTTP/1.1\r\nhost: x\r\n",
    "an invented method": "FETCH /docs/x HTTP/1.1\r\nhost: x\r\n",
    "CONNECT": "CONNECT /docs/x HTTP/1.1\r\nhost: x\r\n",
    "CONNECT to the service": "CONNECT {upstream} HTTP/1.1\r\nhost: {upstream}\r\n",
    "websocket": (
        "GET /docs/x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    ),
    "h2c": (
        "GET /docs/x HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
        "http2-settings: AAMAAABkAAQAAP__\r\n"
    ),
    "two keys": (
        "GET /docs/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nauthorization: Bearer nothing\r\n"
    ),
    "two keys the other way": (
        "GET /docs/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer nothing\r\nauthorization: Bearer {token}\r\n"
    ),
    "the same key twice": (
        "GET /docs/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nauthorization: Bearer {token}\r\n"
    ),
    "folded": "GET /docs/x HTTP/1.1\r\nhost: x\r\nx-a: b\r\n authorization: Bearer {token}\r\n",
    "space before the colon": "GET /docs/x HTTP/1.1\r\nhost: x\r\nauthorization : Bearer {token}\r\n",
    "underscore": "GET /docs/x HTTP/1.1\r\nhost: x\r\nx_weir_key_id: k\r\n",
    "another header": "GET /docs/x HTTP/1.1\r\nhost: x\r\nx-authorization: Bearer {token}\r\ncookie: {token}\r\n",
    "proxy's header": "GET /docs/x HTTP/1.1\r\nhost: x\r\nproxy-authorization: Bearer {token}\r\n",
    "basic": "GET /docs/x HTTP/1.1\r\nhost: x\r\nauthorization: Basic {basic}\r\n",
    "another path named": (
        "GET /docs/x HTTP/1.1\r\nhost: x\r\nx-envoy-original-path: /v1/models\r\nx-original-url: /v1/models\r\n"
        "x-rewrite-url: /v1/models\r\n"
    ),
    "gRPC": "POST /docs/x HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\nte: trailers\r\n",
    "gRPC-Web": "POST /docs/x HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc-web+proto\r\n",
    "a body": "POST /docs/x HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n",
    "connection-listed key": (
        "GET /docs/x HTTP/1.1\r\nhost: x\r\nconnection: authorization\r\nauthorization: Bearer nothing\r\n"
    ),
    "expect": "POST /docs/x HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\n",
}
_STATUS = re.compile(rb"HTTP/1\.1 (\d+) ")
SMUGGLED = "GET /docs/smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
SMUGGLING = {
    "two requests": f"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n{SMUGGLED}",
    "length and chunks": (
        "POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
        f"0\r\n\r\n{SMUGGLED}"
    ),
    "chunks and length": (
        f"POST /v1/models HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: {len(SMUGGLED)}"
        f"\r\n\r\n0\r\n\r\n{SMUGGLED}"
    ),
    "two lengths": (
        f"POST /docs/x HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}"
    ),
    "obscured chunks": f"POST /docs/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    "h2c with a request behind": (
        "GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
        f"http2-settings: AAMAAABkAAQAAP__\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}"
    ),
    "websocket with a request behind": (
        "GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n{SMUGGLED}"
    ),
    "a line feed alone": "GET /v1/models HTTP/1.1\nhost: x\n\nGET /docs/smuggled HTTP/1.1\nhost: x\n\n",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(
    postgres_server: postgres.PostgresFiles, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    """One for the module: the service behind it is never to see anything."""
    cors = {"origins": ["http://e"]}
    async with (
        database(postgres_server) as dsn,
        guarded(tmp_path_factory.mktemp("bypass"), dsn, cors=cors) as found,
    ):
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def weak(mesh: Guarded) -> str:
    """A good key without the scope of the service."""
    return await mesh.keys.make(scopes="{chat}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strong(mesh: Guarded) -> str:
    """A good key that is never sent where it would count."""
    return await mesh.keys.make()


async def status_of(mesh: Guarded, text: str) -> int:
    """The status that a request gets, whose head this is. Nothing of it reaches the service."""
    reader, writer = await asyncio.open_connection(mesh.edge.host, mesh.edge.port)
    try:
        writer.write(f"{text}\r\n".encode("latin-1"))
        async with asyncio.timeout(LIMIT_S):
            status = 100
            while status == 100:
                (found,) = _STATUS.findall(await reader.readuntil(b"\r\n\r\n"))
                status = int(found)
    finally:
        writer.close()
    unseen(mesh)
    return status


def unseen(mesh: Guarded) -> None:
    """The service got no byte and no connection."""
    assert not mesh.docs.received, bytes(mesh.docs.received[:200])
    assert mesh.docs.connections == 0


@pytest.mark.parametrize("target", [pytest.param(path, id=name) for name, path in GUARDED.items()])
async def test_no_target_gets_through_without_a_key(mesh: Guarded, strong: str, target: str) -> None:
    """401, or what Envoy says to a target that it does not take."""
    head = f"GET {target.format(token=strong)} HTTP/1.1\r\nhost: localhost\r\n"
    assert await status_of(mesh, head) in {401, 400, 403}


@pytest.mark.parametrize("target", [pytest.param(path, id=name) for name, path in GUARDED.items()])
async def test_no_target_gets_through_with_another_scope(
    mesh: Guarded, weak: str, strong: str, target: str
) -> None:
    """The same with a key that other services take: 403."""
    path = target.format(token=strong)
    head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {weak}\r\n"
    assert await status_of(mesh, head) in {403, 400}


@pytest.mark.parametrize("target", [pytest.param(path, id=name) for name, path in NOT_THERE.items()])
async def test_what_only_looks_like_it_is_nowhere(mesh: Guarded, strong: str, target: str) -> None:
    """404, even with a good key."""
    head = f"GET {target} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {strong}\r\n"
    assert await status_of(mesh, head) == 404


@pytest.mark.parametrize("head", [pytest.param(head, id=name) for name, head in HEADS.items()])
async def test_no_head_gets_through(mesh: Guarded, strong: str, head: str) -> None:
    """An error, or what the edge itself answers: a preflight, and an error in gRPC's terms."""
    basic = base64.b64encode(f"{strong}:".encode()).decode()
    status = await status_of(mesh, head.format(token=strong, basic=basic, upstream=mesh.docs.address))
    assert status >= 400 or head.startswith("OPTIONS") or "application/grpc\r\n" in head


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in SMUGGLING.items()])
async def test_nothing_is_smuggled(mesh: Guarded, text: str) -> None:
    """A request hidden behind another is a request of its own, refused like any, or is never read."""
    last = "GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answers = await raw(mesh.edge, (text + last).encode())
    unseen(mesh)
    first, *others = (int(status) for status in _STATUS.findall(answers))
    # The request in front goes to the gateway, which may answer it.
    assert first >= 400 or (first == 200 and "/docs/" not in text.partition("\n")[0])
    assert all(status >= 400 for status in others)


HPACK_200 = b"\x88"
"""How headers begin that say 200: an entry of HPACK's static table."""
HTTP2: dict[str, dict[str, str]] = {
    "plain": {},
    "dots": {":path": "/v1/../docs/x"},
    "encoded": {":path": "/open/%2e%2e%2fdocs/x"},
    "trailing dot": {":authority": "localhost."},
    "the service's authority": {":authority": "127.0.0.1:1"},
    "host beside the authority": {"host": "localhost"},
    "https": {":scheme": "https"},
    "CONNECT": {":method": "CONNECT"},
    "extended CONNECT": {":method": "CONNECT", ":protocol": "websocket"},
    "line end in a header": {"x-a": "b\r\nauthorization: Bearer k"},
    "line end in the path": {":path": "/docs/x HTTP/1.1\r\nhost: x\r\n\r\nGET /docs/y"},
    "upper case": {"Authorization": "Bearer k"},
    "chunks": {"transfer-encoding": "chunked"},
    "connection": {"connection": "upgrade", "upgrade": "websocket"},
    "length": {"content-length": "10"},
    "forged identity": {"x-weir-key-id": "k", "x-weir-scopes": "admin"},
    "NUL": {":path": "/docs/\0"},
    "absolute": {":path": "http://localhost/docs/x"},
    "no slash": {":path": "docs/x"},
    "query": {":path": "?/docs/x"},
}


@pytest.mark.parametrize("fields", [pytest.param(fields, id=name) for name, fields in HTTP2.items()])
async def test_nothing_gets_through_by_http2(mesh: Guarded, fields: dict[str, str]) -> None:
    """An error status, a reset stream, or the connection's end."""
    whole = {":method": "GET", ":path": "/docs/x", ":scheme": "http", ":authority": "x", **fields}
    block = b"".join(literal(name, value) for name, value in whole.items())
    async with asyncio.timeout(LIMIT_S), http2(mesh.edge) as connection:
        connection.send(HEADERS, 1, block, END_HEADERS | END_STREAM)
        received = await _ending(connection)
    assert not received.get(HEADERS, b"").startswith(HPACK_200)
    unseen(mesh)


async def _ending(connection: Http2) -> dict[int, bytes]:
    """What came up to the headers of an answer, the stream's reset or the connection's end."""
    received: dict[int, bytes] = {}
    while not {HEADERS, RST_STREAM} & set(received):
        try:
            frame = await connection.frame()
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        received[frame.kind] = frame.payload
    return received


async def test_the_service_would_have_answered(mesh: Guarded, strong: str) -> None:
    """The counterproof, and the last test of the module: with the key the same service takes requests."""
    assert (await mesh.get("/docs/x", strong)).status == 200
    assert mesh.docs.connections == 1
    mesh.docs.connections = 0
    mesh.docs.forget()
