"""Every way a request can fail, in OpenAI's shape."""

from __future__ import annotations

import pytest

from edge.replies import BY_STATUS
from edge.settings import EdgeSettings
from gen.weir.error.v1 import Reason
from meshkit.errors import TABLE
from tests.mesh.edge.rig import CHAT, Edge, raw
from tests.mesh.edge.stand_in import SECRET, Script, failure

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
PATHS = {"stream": ("POST", CHAT), "unary": ("GET", "/v1/models")}
# INTERNAL is what becomes of errors that nobody raised on purpose: test_an_unexpected_error_is_a_bare_500.
RAISED = [reason for reason in TABLE if reason is not Reason.INTERNAL]
STOCK = {
    "UNAVAILABLE": (503, "server_error"),
    "UNIMPLEMENTED": (501, "invalid_request_error"),
    "UNKNOWN": (500, "server_error"),
    "INTERNAL": (500, "server_error"),
    "DEADLINE_EXCEEDED": (504, "server_error"),
    "RESOURCE_EXHAUSTED": (429, "rate_limit_error"),
    "INVALID_ARGUMENT": (400, "invalid_request_error"),
    "UNAUTHENTICATED": (401, "authentication_error"),
    "PERMISSION_DENIED": (403, "permission_error"),
    "CANCELLED": (499, "server_error"),
    "ABORTED": (409, "server_error"),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("reason", RAISED, ids=lambda reason: Reason(reason).name)
@pytest.mark.usefixtures("script")
async def test_each_row_of_the_error_table(running: Edge, reason: Reason, path: tuple[str, str]) -> None:
    """Status, type, code, message, param, retry-after and request id are the router's."""
    row, name = TABLE[reason], Reason(reason).name
    method, url = path
    answer = await running.ask(method, url, None, {"x-test-do": f"fail:{name}", "x-request-id": "mine"})
    assert answer.status == row.http_status
    assert answer.error == {
        "message": failure(name).message,
        "type": row.openai_type,
        "param": "messages[0]",
        "code": row.openai_code,
    }
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("code", STOCK)
@pytest.mark.usefixtures("script")
async def test_a_status_without_our_object(running: Edge, code: str, path: tuple[str, str]) -> None:
    """What a gRPC library says becomes a generic object; its text stays inside."""
    method, url = path
    answer = await running.ask(method, url, None, {"x-test-do": f"stock:{code}"})
    assert (answer.status, answer.error["type"]) == STOCK[code]
    assert SECRET not in f"{answer}"


@pytest.mark.usefixtures("script")
async def test_an_unexpected_error_is_a_bare_500(running: Edge) -> None:
    """The cause is in the router's log alone."""
    answer = await running.chat(x_test_do="crash", x_request_id="mine")
    assert (answer.status, answer.error["type"], answer.error["code"]) == (500, "server_error", None)
    assert "mine" in answer.error["message"]
    assert SECRET not in f"{answer}"


@pytest.mark.parametrize("size", [21 * MIB, 64 * MIB])
async def test_a_body_over_the_limit(running: Edge, script: Script, size: int) -> None:
    """413 before the router sees anything; the next request is answered."""
    answer = await running.chat(b"x" * size)
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert str(EdgeSettings().max_body_bytes) in answer.error["message"]
    assert script.bodies == []
    assert (await running.chat(b"1")).body == b"1"


async def test_a_body_at_the_limit_passes(running: Edge, script: Script) -> None:
    """20 MiB reach the router and come back."""
    body = b"x" * (20 * MIB)
    answer = await running.chat(body)
    assert answer.status == 200
    assert answer.body == body
    assert len(script.bodies) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1"),
        ("POST", "/v1/nothing"),
        ("GET", "/v1/embedding"),
        ("POST", "/chat/completions"),
        ("GET", "/metrics"),
        ("GET", "/stats"),
        ("POST", "/quitquitquit"),
        ("POST", "/weir.openai.v1.OpenAI/ChatCompletions"),
        ("POST", "/weir.router.v1.Router/Generate"),
        ("POST", "/weir.ledger.v1.Ledger/Usage"),
        ("POST", "/v1/../weir.auth.v1.Auth/CreateKey"),
        ("POST", "/v1/%2e%2e%2fweir.auth.v1.Auth/CreateKey"),
    ],
)
async def test_nothing_there(running: Edge, script: Script, method: str, path: str) -> None:
    """Unknown paths and RPCs asked as HTTP: 404 in OpenAI's shape, and no call."""
    answer = await running.ask(method, path, b"{}" if method == "POST" else None)
    assert answer.status == 404
    assert answer.error["type"] == "invalid_request_error"
    assert script.seen == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("GET", f"{CHAT}?stream=true", "POST"),
        ("PUT", "/v1/completions", "POST"),
        ("GET", "/v1/responses", "POST"),
        ("DELETE", "/v1/embeddings", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/org%2Fmodel", "GET"),
        ("OPTIONS", CHAT, "POST"),
    ],
)
async def test_wrong_method(running: Edge, script: Script, method: str, path: str, allow: str) -> None:
    """405 that names the method which the path has, in OpenAI's shape, and no call."""
    answer = await running.ask(method, path, b"{}" if method == "POST" else None)
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert answer.error["type"] == "invalid_request_error"
    assert script.seen == []


async def test_doubled_and_escaped_slashes_are_resolved_first(running: Edge, script: Script) -> None:
    """`//` and `%2F` are the same path to the routes and to the transcoder."""
    lines = b"POST //v1%2Fchat//completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    assert (await raw(running, lines)).startswith(b"HTTP/1.1 200 ")
    assert len(script.seen) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x_weir_org": "acme"}, 400),
        ({"x-big": "x" * 61 * 1024}, 431),
        ({f"x-{n}": "1" for n in range(101)}, 431),
    ],
    ids=["underscore", "60 KiB", "100 headers"],
)
async def test_refused_headers(running: Edge, script: Script, headers: dict[str, str], status: int) -> None:
    """Each in OpenAI's shape; the router sees nothing and the next request is answered."""
    answer = await running.ask("POST", CHAT, b"{}", headers)
    assert (answer.status, answer.error["message"]) == (status, BY_STATUS[status].message)
    assert script.seen == []
    assert (await running.chat(b"1")).body == b"1"


@pytest.mark.parametrize(
    "lines",
    [b"BROKEN\r\n\r\n", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: two\r\n\r\n"],
)
async def test_malformed_http(running: Edge, lines: bytes) -> None:
    """Not HTTP at all: 400, and the connection is closed."""
    assert (await raw(running, lines)).startswith(b"HTTP/1.1 400 ")
