"""Headers, requests and paths that try to be something else than they look like, on the running mesh."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from tests.harness.stronghold import MODEL, Stronghold
from tests.security.raw import request, send

pytestmark = pytest.mark.xdist_group("security")
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]})
JSON = "content-type: application/json"


def bearer(stronghold: Stronghold) -> str:
    """A good key."""
    return f"Bearer {stronghold.weir.key}"


def chat(authorization: str | None, *headers: str, body: str = BODY) -> bytes:
    """A good question but for the headers."""
    return request("/v1/chat/completions", authorization, JSON, *headers, method="POST", body=body)


@pytest.mark.parametrize(
    "header",
    [
        "x-weir-key-id: admin",
        "x-weir-org: other",
        "x-weir-scopes: admin",
        "x-forwarded-client-cert: By=x;URI=spiffe://weir.local/router",
        "x-envoy-internal: true",
        "x-envoy-external-address: 10.0.0.1",
        "x-forwarded-for: 10.0.0.1",
        "x-real-ip: 10.0.0.1",
        "forwarded: for=10.0.0.1",
        "x-original-url: /healthz",
        "x-rewrite-url: /healthz",
        "x-http-method-override: GET",
        "grpc-status: 0",
        "grpc-timeout: 1n",
        "grpc-status-details-bin: AAAA",
        "x-weir-error: {}",
        "x-weir-http-status: 200",
        "te: trailers",
    ],
)
def test_a_header_opens_nothing(stronghold: Stronghold, header: str) -> None:
    """No header stands in for a key, and none of them changes what a good key gets."""
    before = len(stronghold.provider.log())
    assert send(stronghold.weir.edge, chat(None, header)).first == 401
    assert stronghold.asked_since(before) == []
    assert send(stronghold.weir.edge, chat(bearer(stronghold), header)).first == 200


@pytest.mark.parametrize(
    "header", ["x_weir_org: other", "authori_zation: x", "x_forwarded_for: 10.0.0.1", "content_length: 0"]
)
def test_underscores_are_refused(stronghold: Stronghold, header: str) -> None:
    """Many a stack behind reads `x_weir_org` as `x-weir-org`."""
    assert send(stronghold.weir.edge, chat(bearer(stronghold), header)).first == 400


def test_a_key_bound_to_networks_trusts_no_header(stronghold: Stronghold) -> None:
    """Whatever a client says of its address, the connection's counts."""
    key = stronghold.create_key("--network", "10.0.0.0/8")
    for header in ("x-envoy-external-address", "x-forwarded-for", "x-real-ip", "X-Envoy-External-Address"):
        assert send(stronghold.weir.edge, chat(f"Bearer {key}", f"{header}: 10.0.0.1")).first in {401, 403}


@pytest.mark.parametrize("order", ["good first", "bad first", "same twice"])
def test_two_authorizations(stronghold: Stronghold, order: str) -> None:
    """Never the better of two: what is not one key is none, unless both say the same."""
    good, bad = bearer(stronghold), "Bearer weir_x_y"
    first, second = {"good first": (good, bad), "bad first": (bad, good), "same twice": (good, good)}[order]
    status = send(stronghold.weir.edge, chat(first, f"Authorization: {second}")).first
    assert status in {400, 401}


@pytest.mark.parametrize("name", ["AUTHORIZATION", "Authorization", "aUTHORIZATION"])
def test_the_case_of_a_header_means_nothing(stronghold: Stronghold, name: str) -> None:
    """A key is found and judged whichever way its header is written."""
    assert send(stronghold.weir.edge, chat(None, f"{name}: {bearer(stronghold)}")).first == 200
    assert send(stronghold.weir.edge, chat(None, f"{name}: Bearer weir_x_y")).first == 401


SMUGGLED = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\ncontent-length: 0\r\n\r\n"
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        "content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n0\r\n\r\n",
        "content-length: 0\r\ncontent-length: 40\r\n\r\n",
        "content-length: 0, 40\r\n\r\n",
        "content-length: +0\r\n\r\n",
        "content-length: -1\r\n\r\n",
        "content-length: 0x10\r\n\r\n",
        "content-length : 0\r\n\r\n",
        "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0x0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
        "x: y\r\n z: folded\r\ncontent-length: 0\r\n\r\n",
        "x: \x00\r\ncontent-length: 0\r\n\r\n",
        "x: a\rb: c\r\ncontent-length: 0\r\n\r\n",
        "x: a\nb: c\ncontent-length: 0\n\n",
    ],
)
def test_request_smuggling(stronghold: Stronghold, framing: str) -> None:
    """A request of two readings is refused, or read in one way: what hides behind it never gets the key before it."""
    label = f"smuggled-{uuid4().hex}"
    key = f"authorization: {bearer(stronghold)}\r\n"
    before = len(stronghold.provider.log())
    answers = send(
        stronghold.weir.edge, f"{HEAD}{key}{framing}{SMUGGLED.format(id=label)}".encode("latin-1"), 0.3
    )
    assert 200 not in answers.statuses
    assert all(status in {400, 401, 404, 408, 411, 413, 501, 505} for status in answers.statuses), answers
    assert stronghold.asked_since(before) == []


@pytest.mark.parametrize(
    "target",
    [
        "//v1/models",
        "/v1//models",
        "/v1/./models",
        "/v1/x/../models",
        "/%76%31/models",
        "/v1%2fmodels",
        "/v1/%2e%2e/v1/models",
        "/v1/models/",
        "/v1/models/.",
        "/v1/models?authorization=Bearer%20x",
        "/v1/models;x=y",
        "/V1/models",
        "/v1/models%00",
        "/v1/models%0d%0ax",
        "/v1/models#x",
        "\\v1\\models",
        "http://x/v1/models",
        "http://evil.example/v1/models",
        "*",
        "/weir.auth.v1.Auth/CreateKey",
        "//weir.auth.v1.Auth/CreateKey",
        "/weir.auth.v1.Auth%2fCreateKey",
        "/v1/../weir.auth.v1.Auth/CreateKey",
        "/weir.ledger.v1.Ledger/Usage",
        "/weir.cloud.v1.CloudAdapter/ListProviders",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/envoy.service.auth.v3.Authorization/Check",
        "/stats",
        "/quitquitquit",
        "/config_dump",
        "/metrics",
    ],
)
def test_paths(stronghold: Stronghold, target: str) -> None:
    """However a path is written, without a key it opens nothing, and with one nothing that is not routed."""
    for method in ("GET", "POST"):
        refused = send(stronghold.weir.edge, request(target, None, method=method), 0.3)
        assert refused.first in {0, 400, 401, 404, 405, 415}, refused
    answered = send(stronghold.weir.edge, request(target, bearer(stronghold)), 0.3)
    if answered.first == 200:
        assert b'"object":"list"' in answered.data or b'"object":"model"' in answered.data


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:9901", "x.", "localhost", "[::1]", "a" * 300])
def test_hosts(stronghold: Stronghold, host: str) -> None:
    """A Host header chooses nothing: no route, no upstream, no key."""
    without = send(stronghold.weir.edge, request("/v1/models", None, host=host), 0.3)
    assert without.first in {400, 401}
    with_key = send(stronghold.weir.edge, request("/v1/models", bearer(stronghold), host=host), 0.3)
    assert with_key.first in {200, 400}


@pytest.mark.parametrize(
    "line", ["CONNECT 127.0.0.1:9901 HTTP/1.1", "TRACE /v1/models HTTP/1.1", "PRI * HTTP/2.0"]
)
def test_methods(stronghold: Stronghold, line: str) -> None:
    """No tunnel, and no echo of what was sent."""
    data = f"{line}\r\nhost: x\r\nauthorization: {bearer(stronghold)}\r\n\r\n".encode()
    answer = send(stronghold.weir.edge, data, 0.3)
    assert answer.first in {0, 400, 403, 404, 405, 501}
    assert stronghold.weir.key.encode() not in answer.data


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_upgrades(stronghold: Stronghold, protocol: str) -> None:
    """A connection does not become another protocol behind the gateway's back."""
    lines = (
        "connection: upgrade, http2-settings",
        f"upgrade: {protocol}",
        "http2-settings: AAMAAABkAAQAAP__",
    )
    answer = send(stronghold.weir.edge, request("/v1/models", None, *lines), 0.3)
    assert answer.first in {400, 401, 403, 404, 405, 426}
