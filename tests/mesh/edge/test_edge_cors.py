"""What a browser may do with the edge from a page of another origin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from edge.cors import METHODS, REQUEST_HEADERS, RESPONSE_HEADERS
from edge.settings import Cors
from tests.mesh.edge.rig import CHAT, FAST, Answer, Edge, edge
from tests.mesh.edge.stand_in import DO, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = "https://app.example.com"
STRANGER = "https://app.example.com.evil.example"
GRPC_WEB = "/weir.router.v1.Router/ListModels"
# As the official SDK's browser build and grpc-web announce them.
SDK_HEADERS = (
    "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
)
GRPC_WEB_HEADERS = "authorization,content-type,grpc-timeout,x-grpc-web,x-user-agent"


def with_cors(**cors: Any) -> Any:
    """The tests' settings with CORS."""
    return FAST.model_copy(update={"cors": Cors(**cors)})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_to_page(running: Edge, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """An edge that one page may use."""
    settings = with_cors(origins=[PAGE], request_headers=["x-app"])
    async with edge(tmp_path_factory.mktemp("cors"), running.routers, settings) as found:
        yield found


async def preflight(running: Edge, path: str, origin: str, headers: str = SDK_HEADERS) -> Answer:
    """What a browser asks before it sends a page's request."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": headers}
    return await running.ask("OPTIONS", path, None, {"origin": origin, **asked})


def listed(answer: Answer, name: str) -> set[str]:
    """The names in a header's list."""
    return set(answer.headers.get(f"access-control-{name}", "").split(","))


@pytest.mark.parametrize(
    ("path", "headers"), [(CHAT, SDK_HEADERS), ("/v1/models", SDK_HEADERS), (GRPC_WEB, GRPC_WEB_HEADERS)]
)
async def test_preflight_without_a_key(open_to_page: Edge, script: Script, path: str, headers: str) -> None:
    """Answered by the edge alone: method and headers of the SDK and of gRPC-Web are allowed, for two hours."""
    answer = await preflight(open_to_page, path, PAGE, headers)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert listed(answer, "allow-methods") == set(METHODS)
    assert set(headers.split(",")) <= listed(answer, "allow-headers") == {*REQUEST_HEADERS, "x-app"}
    assert answer.headers["access-control-max-age"] == "7200"
    assert "access-control-allow-credentials" not in answer.headers
    assert script.seen == []


async def test_an_answer_can_be_read(open_to_page: Edge, script: Script) -> None:
    """The page sees the body and the headers that Weir documents; caches know that it depends on the origin."""
    answer = await open_to_page.ask("POST", CHAT, b"{}", {"origin": PAGE})
    assert (answer.status, len(script.seen)) == (200, 1)
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert listed(answer, "expose-headers") == set(RESPONSE_HEADERS)
    assert answer.headers["vary"] == "origin"


@pytest.mark.parametrize(
    ("method", "path", "do", "status"),
    [
        ("GET", "/v1/models", "fail:KEY_MISSING", 401),
        ("POST", CHAT, "fail:MODEL_NOT_FOUND", 404),
        ("POST", CHAT, "fail:RATE_LIMITED", 429),
        ("POST", CHAT, "stock:UNAVAILABLE", 503),
        ("GET", "/v1/nothing", "echo", 404),
        ("GET", "/nothing", "echo", 404),
        ("GET", CHAT, "echo", 405),
    ],
)
@pytest.mark.usefixtures("script")
async def test_an_error_can_be_read(open_to_page: Edge, method: str, path: str, do: str, status: int) -> None:
    """The router's errors and the edge's own: else a page sees no more than that its request failed."""
    answer = await open_to_page.ask(
        method, path, b"{}" if method == "POST" else None, {"origin": PAGE, DO: do}
    )
    assert answer.status == status
    assert answer.error["message"]
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "retry-after" in listed(answer, "expose-headers")


async def test_a_body_over_the_limit_can_be_read(running: Edge, tmp_path: Any) -> None:
    """A 413 of the transcoder."""
    settings = with_cors(origins=[PAGE]).model_copy(update={"max_body_bytes": 2_048})
    async with edge(tmp_path, running.routers, settings) as other:
        answer = await other.ask("POST", CHAT, b"x" * 4_096, {"origin": PAGE})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (413, PAGE)


async def test_no_worker_can_be_read(tmp_path: Any) -> None:
    """The 503 of an edge without a router, and its retry-after."""
    async with edge(tmp_path, ["127.0.0.1:1"], with_cors(origins=[PAGE]), healthy=False) as other:
        answer = await other.ask("POST", CHAT, b"{}", {"origin": PAGE})
        assert (answer.status, answer.error["code"]) == (503, "no_healthy_target")
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert (await preflight(other, CHAT, PAGE)).status == 200


@pytest.mark.parametrize("origin", [STRANGER, "http://app.example.com", f"{PAGE}:8443", "null"])
async def test_a_stranger_is_told_nothing(open_to_page: Edge, script: Script, origin: str) -> None:
    """Neither preflight nor answer has a CORS header, so its browser shows the page nothing."""
    refused = await preflight(open_to_page, CHAT, origin)
    assert refused.status == 405
    answer = await open_to_page.ask("POST", CHAT, b"{}", {"origin": origin})
    for each in (refused, answer):
        assert not [name for name in each.headers if name.startswith("access-control-")]
    assert len(script.seen) == 1


async def test_every_page(running: Edge, tmp_path: Any, script: Script) -> None:
    """`*` allows whoever asks, and never credentials."""
    async with edge(tmp_path, running.routers, with_cors(origins=["*"], max_age_s=7)) as other:
        for origin in (PAGE, STRANGER):
            answer = await preflight(other, CHAT, origin)
            assert (answer.status, answer.headers["access-control-max-age"]) == (200, "7")
            assert answer.headers["access-control-allow-origin"] in {origin, "*"}
            assert "access-control-allow-credentials" not in answer.headers


async def test_credentials_where_they_are_set(running: Edge, tmp_path: Any, script: Script) -> None:
    """Preflight and answer say that cookies may go with a request."""
    async with edge(tmp_path, running.routers, with_cors(origins=[PAGE], credentials=True)) as other:
        answers = [
            await preflight(other, CHAT, PAGE),
            await other.ask("GET", "/v1/models", None, {"origin": PAGE}),
        ]
    assert [each.headers["access-control-allow-credentials"] for each in answers] == ["true", "true"]


async def test_off_by_default(running: Edge, script: Script) -> None:
    """Without `edge.cors` a preflight is a wrong method, and no answer has a CORS header."""
    answers = [
        await preflight(running, CHAT, PAGE),
        await preflight(running, GRPC_WEB, PAGE),
        await running.ask("POST", CHAT, b"{}", {"origin": PAGE}),
    ]
    assert [each.status for each in answers] == [405, 404, 200]
    for each in answers:
        assert not [name for name in each.headers if name.startswith(("access-control-", "vary"))]
