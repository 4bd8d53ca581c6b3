"""SSRF: no field of any request makes a part of Weir open a connection to where the client wants."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.harness.stronghold import MODEL, VECTORS, Stronghold
from tests.security.raw import request, send

pytestmark = pytest.mark.xdist_group("security")
JSON = "content-type: application/json"


@dataclass
class Canary:
    """Listens on loopback and counts who comes."""

    url: str
    address: str
    visits: list[bytes] = field(default_factory=list)


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    """The address that requests try to lure Weir to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        canary = Canary(f"http://{address}/lure", address)

        def listen() -> None:
            while True:
                try:
                    visitor, _ = server.accept()
                except OSError:
                    return
                with visitor:
                    visitor.settimeout(1)
                    try:
                        canary.visits.append(visitor.recv(1_000))
                    except TimeoutError:
                        canary.visits.append(b"")

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield canary
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _content(part: dict[str, Any]) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]}


def _responses(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": "hi", **fields}


def _chat(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **fields}


def bodies(url: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every field that holds a URL somewhere in OpenAI's format, or that somebody could take for one."""
    item = {"type": "message", "role": "user"}
    return {
        "image": ("/v1/chat/completions", _content({"type": "image_url", "image_url": {"url": url}})),
        "file": (
            "/v1/chat/completions",
            _content({"type": "file", "file": {"file_data": url, "filename": url}}),
        ),
        "audio": (
            "/v1/chat/completions",
            _content({"type": "input_audio", "input_audio": {"data": url, "format": "wav"}}),
        ),
        "response image": (
            "/v1/responses",
            _responses(
                input=[{**item, "content": [{"type": "input_image", "image_url": url, "detail": "auto"}]}]
            ),
        ),
        "response file": (
            "/v1/responses",
            _responses(input=[{**item, "content": [{"type": "input_file", "file_url": url}]}]),
        ),
        "mcp": (
            "/v1/responses",
            _responses(tools=[{"type": "mcp", "server_label": "x", "server_url": url}]),
        ),
        "model": ("/v1/chat/completions", _chat(model=url)),
        "fallbacks": ("/v1/chat/completions", _chat(fallbacks=[url])),
        "metadata": ("/v1/chat/completions", _chat(metadata={"webhook": url}, user=url)),
        "unknown fields": (
            "/v1/chat/completions",
            _chat(base_url=url, api_base=url, callback_url=url, proxy=url),
        ),
        "schema reference": (
            "/v1/chat/completions",
            _chat(
                response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": url}}}
            ),
        ),
        "embeddings": ("/v1/embeddings", {"model": VECTORS, "input": url, "user": url}),
    }


@pytest.mark.parametrize("name", bodies(""))
def test_a_field_opens_no_connection(stronghold: Stronghold, canary: Canary, name: str) -> None:
    """What a URL in a request means is the provider's to find out; Weir passes it on or refuses it."""
    path, body = bodies(canary.url)[name]
    bearer = f"Bearer {stronghold.weir.key}"
    answer = send(stronghold.weir.edge, request(path, bearer, JSON, method="POST", body=json.dumps(body)))
    assert answer.first in {200, 400, 404}, answer
    assert canary.visits == []


@pytest.mark.parametrize(
    "line",
    [
        "host: {address}",
        "x-forwarded-host: {address}",
        "x-original-url: {url}",
        "referer: {url}",
        "origin: http://{address}",
        "forwarded: host={address};for={address}",
        "x-weir-targets: {url}",
        "openai-base-url: {url}",
        "x-request-id: {url}",
        "traceparent: {url}",
        "link: <{url}>; rel=preload",
    ],
)
def test_a_header_opens_no_connection(stronghold: Stronghold, canary: Canary, line: str) -> None:
    """Nor does anything in a header."""
    header = line.format(address=canary.address, url=canary.url)
    host = "" if header.startswith("host:") else "x"
    sent = request(
        "/v1/chat/completions", f"Bearer {stronghold.weir.key}", JSON, header,
        method="POST", body=json.dumps(_chat()), host=host,
    )  # fmt: skip
    assert send(stronghold.weir.edge, sent).first in {200, 400, 404}
    assert canary.visits == []


@pytest.mark.parametrize("target", ["http://{address}/v1/models", "//{address}/v1/models"])
def test_a_target_opens_no_connection(stronghold: Stronghold, canary: Canary, target: str) -> None:
    """The gateway is nobody's proxy."""
    bearer = f"Bearer {stronghold.weir.key}"
    send(stronghold.weir.edge, request(target.format(address=canary.address), bearer))
    assert canary.visits == []


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "iss", "kid"])
def test_a_token_opens_no_connection(stronghold: Stronghold, canary: Canary, name: str) -> None:
    """Keys come from the configured place alone, whatever a token says of where its own are."""
    header: dict[str, Any] = {"jwk": {"kty": "oct", "k": "AAAA"}}.get(name, {name: canary.url})
    token = stronghold.jwt(iss=canary.url) if name == "iss" else stronghold.jwt(header=header)
    answer = send(stronghold.weir.edge, request("/v1/models", f"Bearer {token}"))
    assert answer.first in {200, 401}
    assert canary.visits == []


def test_the_canary_sings(canary: Canary) -> None:
    """Else the tests above would show nothing."""
    host, _, port = canary.address.partition(":")
    before = len(canary.visits)
    with socket.create_connection((host, int(port)), 5) as visitor:
        visitor.sendall(b"x")
        visitor.settimeout(5)
        assert visitor.recv(1) == b""
    assert len(canary.visits) == before + 1
