"""Every HTTP path of the contract: the RPC it reaches, the model's name in a URL, and the headers both ways."""

from __future__ import annotations

import json

import pytest
from yarl import URL

from edge.routes import IDENTITY_HEADERS
from tests.mesh.edge.rig import CHAT, Edge
from tests.mesh.edge.stand_in import ANSWER_HEADERS, DO, FIRST, LAST, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODIES = {
    CHAT: "ChatCompletions",
    "/v1/completions": "Completions",
    "/v1/responses": "Responses",
    "/v1/embeddings": "Embeddings",
}
STREAMS = [path for path, rpc in BODIES.items() if rpc != "Embeddings"]
MODELS = {
    "gpt-4.1-mini": "gpt-4.1-mini",
    "org%2Fmodel": "org/model",
    "org/model": "org/model",
    "org%2Fmodel%3Atag": "org/model:tag",
    "a:b": "a:b",
    "a%3Ab": "a:b",
    "with%20space%25": "with space%",
    "%C5%BC%C3%B3%C5%82w": "żółw",
    "a%3Fb": "a?b",
    "a%252Fb": "a%2Fb",
    "x/": "x",
    "/x": "x",
    "org//x": "org/x",
    "x?api-version=2026-01-01": "x",
    "x?model=y": "x",
}
WISHES = {
    "x-weir-on-cut": "hold",
    "x-weir-targets": "local,cloud",
    "x-weir-deadline-ms": "1500",
    "idempotency-key": "k",
    "openai-organization": "org-1",
}


@pytest.mark.parametrize("path", BODIES)
async def test_each_path_reaches_its_rpc(running: Edge, script: Script, path: str) -> None:
    """The body arrives as bytes and goes back as bytes."""
    body = b'{ "unheard_of": 1.0 }'
    answer = await running.ask("POST", path, body)
    assert (answer.status, answer.body, script.rpcs) == (200, body, [BODIES[path]])
    assert script.bodies[-1].data == body
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", STREAMS)
async def test_each_path_streams(running: Edge, script: Script, path: str) -> None:
    """Chunks are passed on as they come, on every path that has streams."""
    async with running.client.post(running.url + path, data=b"{}", headers={DO: "stream"}) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert await response.content.readexactly(len(FIRST)) == FIRST
        assert not script.release.is_set()
        script.release.set()
        assert await response.read() == LAST


@pytest.mark.parametrize("path", [*BODIES, "/v1/models", "/v1/models/x"])
@pytest.mark.usefixtures("script")
async def test_each_path_has_errors_in_openais_shape(running: Edge, path: str) -> None:
    """Streamed and unary RPCs alike."""
    method = "GET" if "models" in path else "POST"
    answer = await running.ask(method, path, b"{}" if method == "POST" else None, {DO: "fail:FORBIDDEN"})
    assert (answer.status, answer.error["type"]) == (403, "permission_error")


@pytest.mark.parametrize(("segment", "model"), MODELS.items())
async def test_the_models_name_in_a_url(running: Edge, script: Script, segment: str, model: str) -> None:
    """Unescaped once; slashes are part of it, doubled ones and one at the end are not; a query changes nothing."""
    async with running.client.get(URL(f"{running.url}/v1/models/{segment}", encoded=True)) as response:
        assert response.status == 200
        assert await response.json() == {"object": "model"}
    assert (script.rpcs, script.models) == (["GetModel"], [model])


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "/v1//models", "//v1/models"])
async def test_the_list_of_models(running: Edge, script: Script, path: str) -> None:
    """A slash too many still asks for the list."""
    answer = await running.ask("GET", path)
    assert (answer.status, json.loads(answer.body)["object"]) == (200, "list")
    assert script.rpcs == ["ListModels"]


@pytest.mark.parametrize("path", [*BODIES, "/v1/models", "/v1/models/x"])
async def test_wishes_pass_and_identity_does_not(running: Edge, script: Script, path: str) -> None:
    """What a client may ask for reaches the router; who it is, the router finds out itself."""
    method = "GET" if "models" in path else "POST"
    forged = dict.fromkeys(IDENTITY_HEADERS, "forged")
    await running.ask(method, path, b"{}" if method == "POST" else None, {**WISHES, **forged})
    (seen,) = script.seen
    assert WISHES.items() <= seen.items()
    assert not set(IDENTITY_HEADERS) & set(seen)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.usefixtures("script")
async def test_what_the_router_says_of_an_answer_reaches_the_client(running: Edge, path: str) -> None:
    """Request id, target, reason, attempts and time, and nothing of gRPC or Envoy."""
    answer = await running.ask("POST", path, b"{}", {"x-request-id": "mine"})
    expected = {**ANSWER_HEADERS, "x-request-id": "mine", "x-weir-target": "worker"}
    assert expected.items() <= answer.headers.items()
    assert not [name for name in answer.headers if name.startswith(("grpc-", "x-envoy-", "server"))]


async def test_a_stream_has_the_same_headers(running: Edge, script: Script) -> None:
    """They come before its first chunk."""
    script.release.set()
    async with running.client.post(running.url + CHAT, data=b"{}", headers={DO: "stream"}) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
    assert ANSWER_HEADERS.items() <= headers.items()
