"""Bad input on the running mesh: the right error in the right shape, the field named, the next request answered."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.harness.running_weir import RunningWeir

GOOD = b'{"model":"cloud","messages":[{"role":"user","content":"hi"}]}'
DEEP = 100_000
BODY_BYTES = 21 * 1024 * 1024


def chat(fields: str) -> bytes:
    """A request with more fields."""
    return b'{"model":"cloud","messages":[{"role":"user","content":"hi"}],' + fields.encode() + b"}"


@dataclass(frozen=True)
class Bad:
    """One kind of bad input, and what must come back."""

    name: str
    body: bytes
    status: int = 400
    param: str | None = None
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.name


CASES = (
    Bad("not_json", b"hello"),
    Bad("empty", b""),
    Bad("list_at_the_top", b"[]"),
    Bad("trailing_comma", GOOD[:-1] + b",}"),
    Bad("not_utf8", chat('"user":"x"').replace(b'"x"', b'"\xff"')),
    Bad("21_mb", chat('"user":"' + "x" * BODY_BYTES + '"'), 413, code="request_too_large"),
    Bad("100000_deep", chat('"metadata":' + "[" * DEEP + "]" * DEEP)),
    Bad("nan", chat('"temperature":NaN')),
    Bad("1e999", chat('"temperature":1e999'), param="temperature"),
    Bad(
        "unknown_role",
        b'{"model":"cloud","messages":[{"role":"wizard","content":"x"}]}',
        param="messages[0].role",
    ),
    Bad("empty_messages", b'{"model":"cloud","messages":[]}', param="messages"),
    Bad("negative_max_tokens", chat('"max_tokens":-5'), param="max_tokens"),
    Bad("duplicate_model", chat('"model":"local"'), param="model"),
    Bad("unknown_model", GOOD.replace(b"cloud", b"nope"), 404, "model", "model_not_found"),
    Bad(
        "unsupported_by_local",
        chat('"logprobs":true').replace(b"cloud", b"local"),
        400,
        "logprobs",
        "unsupported_parameter",
    ),
    Bad("header_with_underscores", GOOD, headers=(("x_weir_org", "evil"),)),
)


def post(weir: RunningWeir, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> tuple[int, bytes]:
    """A request by hand, for a client library would refuse to send some of these. Status and body."""
    host, _, port = weir.edge.partition(":")
    head = [
        "POST /v1/chat/completions HTTP/1.1", f"host: {weir.edge}", "content-type: application/json",
        f"authorization: Bearer {weir.key}", f"content-length: {len(body)}", "connection: close",
        *(f"{name}: {value}" for name, value in headers),
    ]  # fmt: skip
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        with suppress(
            BrokenPipeError, ConnectionResetError
        ):  # the edge may answer before it has read everything
            connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        answer = b"".join(received(connection))
    headline, _, rest = answer.partition(b"\r\n\r\n")
    chunked = b"transfer-encoding: chunked" in headline.lower()
    return int(headline.split()[1]), dechunked(rest) if chunked else rest


def received(connection: socket.socket) -> Iterator[bytes]:
    """What comes until the end; a reset after the answer is the end too."""
    try:
        while data := connection.recv(65_536):
            yield data
    except ConnectionResetError:
        return


def dechunked(body: bytes) -> bytes:
    """A chunked body put together."""
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        whole += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return whole


@pytest.mark.parametrize("bad", CASES, ids=str)
def test_bad_input(weir: RunningWeir, bad: Bad) -> None:
    """The error is OpenAI's object with the field at fault; the processes live on and answer the next request."""
    before = weir.pids()
    status, body = post(weir, bad.body, bad.headers)
    error = json.loads(body)["error"]
    assert status == bad.status, error
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["code"]) == (bad.param, bad.code)
    assert error["message"]
    assert weir.pids() == before
    assert post(weir, GOOD)[0] == 200


def test_forged_identity_header_changes_nothing(weir: RunningWeir) -> None:
    """Identity comes from the key alone: headers that claim another one are dropped, and the key is still needed."""
    forged = (("x-weir-org", "evil"), ("x-weir-principal", "evil"), ("x-weir-key-id", "evil"))
    mine = "forged-identity-1"
    assert post(weir, GOOD, (*forged, ("x-request-id", mine)))[0] == 200
    row = weir.entry(mine)
    assert "evil" not in {row["org"], row["team"], row["key_id"]}


@pytest.mark.parametrize(
    "message",
    [b"\x0a\xff", b"\x12\x05\x08\x02\x12\xff", b"\xff\xff\xff\xff", b"\x0a\x02\xff\xfe"],
    ids=["cut", "cut_inside", "no_tag", "not_utf8"],
)
def test_malformed_grpc_message(weir: RunningWeir, message: bytes) -> None:
    """A gRPC message cut short is INVALID_ARGUMENT, and the same channel goes on."""
    with grpc.insecure_channel(weir.edge) as channel:
        bearer = (("authorization", f"Bearer {weir.key}"),)
        generate: Any = channel.unary_stream("/weir.router.v1.Router/Generate")
        with pytest.raises(grpc.RpcError) as caught:
            list(generate(message, metadata=bearer, timeout=10))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        list_models: Any = channel.unary_unary("/weir.router.v1.Router/ListModels")
        listed = list_models(b"", metadata=bearer, timeout=10)
        assert b"cloud" in listed
