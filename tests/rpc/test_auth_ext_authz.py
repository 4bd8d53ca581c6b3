"""envoy.service.auth.v3.Authorization as Envoy calls it: a real server, and bytes as Envoy's own contract has them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gen.envoy.service.auth.v3 import (
    Address,
    AttributeContext,
    CheckRequest,
    CheckResponse,
    DeniedHttpResponse,
    HeaderAppendAction,
    HeaderValue,
    HeaderValueOption,
    HttpRequest,
    HttpStatus,
    OkHttpResponse,
    Peer,
    Request,
    SocketAddress,
    Status,
)
from gen.envoy.service.auth.v3.service import AuthorizationClient
from gen.weir.auth.v1 import Key, Scope
from gen.weir.type.v1 import Principal
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import (
    Forbidden,
    InternalFault,
    KeyMissing,
    KeyRevoked,
    RateLimited,
    UpstreamError,
    WeirError,
)
from meshkit.server import MeshServer
from meshkit.serving import Servicer
from meshkit.settings import Listen
from meshkit.telemetry import Logger
from services.auth.check import Question
from services.auth.ext_authz_servicer import ExtAuthzServicer
from tests.fakes.auth import key_of, token_of

KEY = replace(key_of(token_of(1)), scopes=[Scope.USAGE_READ, Scope.CHAT])


class Checked:
    """The use case: says what the test says, and the service that a server mounts."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.answer: Key | WeirError = KEY
        self.servicers: list[Servicer] = [ExtAuthzServicer(self._check)]

    async def _check(self, question: Question) -> Key:
        self.questions.append(question)
        if isinstance(self.answer, WeirError):
            raise self.answer
        return self.answer

    async def start(self) -> None:
        """Needs nothing."""

    async def stop(self) -> None:
        """Holds nothing."""


@pytest.fixture
def checked() -> Checked:
    return Checked()


@pytest.fixture
async def client(checked: Checked, tmp_path: Path) -> AsyncIterator[AuthorizationClient]:
    address = f"unix:{tmp_path}/auth.sock"
    listen = Listen(address, "", 0, timedelta(0))
    server = MeshServer("auth", checked, listen, CollectorRegistry(), Logger("auth"))
    await server.start()
    async with open_channel(address) as channel:
        yield AuthorizationClient(ChannelTransport(channel, mesh_codec()))
    await server.stop()


def asked(headers: dict[str, str], **extensions: str) -> CheckRequest:
    """A request from 10.1.2.3; in an extension's name `__` stands for a dot."""
    return CheckRequest(
        attributes=AttributeContext(
            source=Peer(address=Address(socket_address=SocketAddress(address="10.1.2.3"))),
            request=Request(http=HttpRequest(headers=headers)),
            context_extensions={name.replace("__", "."): value for name, value in extensions.items()},
        )
    )


def headers_of(options: list[HeaderValueOption]) -> dict[str, str]:
    """By name. Each replaces what is there."""
    found = {}
    for option in options:
        assert option.header is not None
        assert option.append_action is HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
        found[option.header.key] = option.header.value
    assert len(found) == len(options)
    return found


async def test_a_good_key(checked: Checked, client: AuthorizationClient) -> None:
    """OK, with who asks, and without the key on the way upstream."""
    headers = {"authorization": "Bearer k", "x-request-id": "mine"}
    answer = await client.check(asked(headers, weir__service="docs", weir__scope="usage:read"))
    assert checked.questions == [Question("Bearer k", "10.1.2.3", Scope.USAGE_READ, "docs")]
    assert answer.status is not None
    assert answer.status.code == 0
    assert answer.denied_response is None
    assert answer.ok_response is not None
    assert headers_of(answer.ok_response.headers) == {
        "x-weir-key-id": KEY.id, "x-weir-org": "acme", "x-weir-team": "search", "x-weir-scopes": "chat,usage:read",
    }  # fmt: skip
    assert answer.ok_response.headers_to_remove == ["authorization"]


async def test_the_key_may_be_kept(client: AuthorizationClient) -> None:
    """Where the edge's settings say so."""
    answer = await client.check(asked({}, weir__keep_authorization="true"))
    assert answer.ok_response is not None
    assert answer.ok_response.headers_to_remove == []


async def test_names_cannot_break_a_header(checked: Checked, client: AuthorizationClient) -> None:
    """Whatever is no visible ASCII is percent-encoded, and so is `%`: line ends above all."""
    checked.answer = replace(
        KEY, principal=Principal(key_id=KEY.id, org="a\r\nx-weir-team: b", team="żółw 100%")
    )
    answer = await client.check(asked({}))
    assert answer.ok_response is not None
    found = headers_of(answer.ok_response.headers)
    assert found["x-weir-org"] == "a%0D%0Ax-weir-team: b"
    assert found["x-weir-team"] == "%C5%BC%C3%B3%C5%82w 100%25"


async def test_the_edge_knows_the_client_best(checked: Checked, client: AuthorizationClient) -> None:
    """Behind a proxy of one's own the connection's other end is the proxy."""
    await client.check(asked({"x-envoy-external-address": "203.0.113.9"}))
    assert checked.questions[-1].address == "203.0.113.9"


async def test_an_empty_request(checked: Checked, client: AuthorizationClient) -> None:
    """Has no key and no address."""
    await client.check(CheckRequest())
    assert checked.questions == [Question(None, "", None, "")]


@pytest.mark.parametrize(
    ("error", "status", "grpc", "challenge"),
    [
        (KeyMissing("no key was sent"), 401, 16, 'Bearer realm="weir"'),
        (KeyRevoked("the key was revoked"), 401, 16, 'Bearer realm="weir", error="invalid_token"'),
        (Forbidden("the key lacks the scope usage:read"), 403, 7, None),
        (RateLimited("too many", retry_after=timedelta(seconds=1.5)), 429, 8, None),
    ],
)
async def test_refusals(
    checked: Checked,
    client: AuthorizationClient,
    error: WeirError,
    status: int,
    grpc: int,
    challenge: str | None,
) -> None:
    """The client is told why, in OpenAI's error object."""
    checked.answer = error
    answer = await client.check(asked({"x-request-id": "mine"}))
    assert answer.ok_response is None
    assert answer.status is not None
    assert answer.status.code == grpc
    denied = answer.denied_response
    assert denied is not None
    assert denied.status is not None
    assert denied.status.code == status
    assert json.loads(denied.body)["error"]["message"] == error.message
    headers = headers_of(denied.headers)
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"] == "mine"
    assert headers.get("www-authenticate") == challenge
    assert headers.get("retry-after") == ("2" if status == 429 else None)


async def test_a_grpc_client_is_told_in_words(checked: Checked, client: AuthorizationClient) -> None:
    """The body becomes the status' message."""
    checked.answer = KeyMissing("no key was sent")
    answer = await client.check(asked({"content-type": "application/grpc+proto"}))
    assert answer.denied_response is not None
    assert answer.denied_response.body == "no key was sent"
    assert "content-type" not in headers_of(answer.denied_response.headers)


async def test_who_cannot_say_fails(checked: Checked, client: AuthorizationClient) -> None:
    """The call itself ends with an error, on which Envoy lets nothing pass."""
    checked.answer = UpstreamError("the key store cannot be reached")
    with pytest.raises(UpstreamError):
        await client.check(asked({}))


async def test_an_unknown_scope_lets_nothing_pass(checked: Checked, client: AuthorizationClient) -> None:
    """An edge of a newer release may ask for one."""
    with pytest.raises(InternalFault):
        await client.check(asked({}, weir__scope="teleport"))
    assert checked.questions == []


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field of a number up to 15, and of up to 16383 bytes."""
    length = len(value)
    size = [length] if length < 0x80 else [length & 0x7F | 0x80, length >> 7]
    return bytes([number << 3 | 2, *size]) + value


def _entry(number: int, key: str, value: str) -> bytes:
    return _field(number, _field(1, key.encode()) + _field(2, value.encode()))


def test_what_envoy_sends_is_read() -> None:
    """Bytes by the numbers of Envoy's contract, fields among them that are left out of ours."""
    http = (
        _field(1, b"id") + _field(2, b"GET") + _entry(3, "authorization", "Bearer k") + _field(4, b"/docs/")
    )
    socket = _field(2, b"10.1.2.3") + b"\x18\x50"
    source = _field(1, _field(1, socket)) + _field(4, b"spiffe://x")
    attributes = _field(1, source) + _field(2, source) + _field(4, _field(1, b"") + _field(2, http))
    attributes += _entry(10, "weir.service", "docs") + _field(11, b"")
    read = mesh_codec().decode(CheckRequest, _field(1, attributes))
    assert read == asked({"authorization": "Bearer k"}, weir__service="docs")


def test_what_envoy_reads_is_sent() -> None:
    """The same the other way: a denial, and a header that is set on one that passes."""
    denied = CheckResponse(
        status=Status(code=16),
        denied_response=DeniedHttpResponse(status=HttpStatus(code=401), body="{}"),
    )
    expected = _field(1, b"\x08\x10") + _field(2, _field(1, b"\x08\x91\x03") + _field(3, b"{}"))
    assert mesh_codec().encode(denied) == expected
    replaced = HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    option = HeaderValueOption(header=HeaderValue(key="a", value="b"), append_action=replaced)
    passed = CheckResponse(
        status=Status(), ok_response=OkHttpResponse(headers=[option], headers_to_remove=["c"])
    )
    header = _field(1, _field(1, b"a") + _field(2, b"b")) + b"\x18\x02"
    expected = _field(1, b"") + _field(3, _field(2, header) + _field(5, b"c"))
    assert mesh_codec().encode(passed) == expected
