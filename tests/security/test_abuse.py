"""Bodies, headers and messages made to break or to stop what reads them, on the running mesh."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import grpc
import pytest

from tests.harness.stronghold import MODEL, PRIVATE, Stronghold
from tests.security.administration import Desk, bearer
from tests.security.raw import Answers
from tests.security.watch import Logs, Memory

pytestmark = pytest.mark.xdist_group("security")
BOUND_S = 20.0
"""No request takes longer; on a quiet machine all but the largest take milliseconds."""
DEEP, MANY, DIGITS = 100_000, 1_000_000, 1_000_000
BOMB_BYTES, MESSAGE_BYTES, BOMB_MIB = 100_000_000, 50_000_000, 32
"""The sizes of bombs once opened, as a body and as a message; and what they may cost any part at most."""
QUESTION: Mapping[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
OK, BAD, TOO_LARGE, TOO_MANY_HEADERS = 200, 400, 413, 431


@pytest.fixture(autouse=True)
def unharmed(stronghold: Stronghold) -> Iterator[None]:
    """Afterwards nothing has crashed or complained, and a good question is answered as before."""
    pids, logs = stronghold.weir.pids(), Logs(stronghold)
    yield
    for _ in range(4):  # both workers
        assert pour(stronghold, json.dumps(dict(QUESTION)).encode()).first == OK
    assert stronghold.weir.pids() == pids
    assert logs.errors() == []


def head(key: str, length: int, *headers: str) -> bytes:
    """Of a question with a body of this length; each of `headers` is a whole line."""
    lines = (
        "POST /v1/chat/completions HTTP/1.1", "host: x", "content-type: application/json", "connection: close",
        f"authorization: {bearer(key)}", f"content-length: {length}", *headers,
    )  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def pour(stronghold: Stronghold, body: bytes, *headers: str, key: str | None = None) -> Answers:
    """Sends a question as fast as it is taken, whatever is answered meanwhile; reads the answer's head.

    Args:
        stronghold: where.
        body: of the question.
        headers: further ones, each a whole line.
        key: whose; by default the demo key.
    """
    host, _, port = stronghold.weir.edge.partition(":")
    got = b""
    with socket.create_connection((host, int(port)), timeout=BOUND_S) as connection:
        with suppress(ConnectionError):  # it was answered before it was whole
            connection.sendall(head(key or stronghold.weir.key, len(body), *headers) + body)
        with suppress(ConnectionError):
            while b"\r\n\r\n" not in got and (piece := connection.recv(65_536)):
                got += piece
    return Answers(got)


def question(**fields: Any) -> bytes:
    """A good question but for these fields."""
    return json.dumps({**QUESTION, **fields}).encode()


def with_text(fields: str) -> bytes:
    """A good question with more fields, as they are written."""
    return json.dumps(dict(QUESTION)).encode()[:-1] + b"," + fields.encode("latin-1") + b"}"


def saying(text: bytes) -> bytes:
    """A good question with these bytes as the text in quotes."""
    return json.dumps(dict(QUESTION)).encode().replace(b'"hi"', b'"' + text + b'"')


def _tool(number: int) -> dict[str, Any]:
    return {"type": "function", "function": {"name": f"tool_{number}", "parameters": {"type": "object"}}}


BODIES: Mapping[str, tuple[Callable[[], bytes], set[int]]] = {
    "deep lists": (lambda: with_text('"metadata":' + "[" * DEEP + "]" * DEEP), {BAD}),
    "deep objects": (lambda: with_text('"x":' + '{"a":' * DEEP + "1" + "}" * DEEP), {BAD}),
    "deep and open": (lambda: with_text('"x":' + "[" * DEEP), {BAD}),
    "deep content": (lambda: saying(b"hi").replace(b'"hi"', b"[" * DEEP + b"]" * DEEP), {BAD}),
    "deep schema": (
        lambda: question(tools=[_tool(0)]).replace(b'"object"', b'{"x":' * DEEP + b"1" + b"}" * DEEP),
        {BAD},
    ),
    "a million keys": (
        lambda: with_text(",".join(f'"k{number}":0' for number in range(MANY))),
        {OK, BAD},
    ),
    "a million times a key": (lambda: with_text(",".join(['"seed":1'] * MANY)), {BAD}),
    "a key of escapes": (lambda: with_text('"' + "\\\\" * 8 * MANY + '":1'), {BAD}),
    "a million elements": (lambda: with_text('"stop":[' + ",".join(['"a"'] * MANY) + "]"), {BAD}),
    "a million digits": (lambda: with_text('"max_tokens":' + "1" * DIGITS), {BAD}),
    "a million decimals": (lambda: with_text('"temperature":0.' + "1" * DIGITS), {OK, BAD}),
    "a huge exponent": (lambda: with_text('"temperature":1e999999999'), {BAD}),
    "a tiny exponent": (lambda: with_text('"temperature":1e-999999999'), {OK, BAD}),
    "not UTF-8": (lambda: saying(b"\xff\xfe"), {BAD}),
    "overlong UTF-8": (lambda: saying(b"\xc0\x80"), {BAD}),
    "a surrogate in UTF-8": (lambda: saying(b"\xed\xa0\x80"), {BAD}),
    "a lone surrogate": (lambda: saying(b"\\ud800"), {OK, BAD}),
    "a lone surrogate as model": (lambda: question(model="\ud800"), {BAD, 404}),
    "a lone surrogate as key": (lambda: with_text('"\\ud800":1'), {OK, BAD}),
    "NUL": (lambda: saying(b"\x00"), {BAD}),
    "NUL in escapes": (lambda: saying(b"\\u0000"), {OK}),
    "NUL as model": (lambda: question(model="chatty\0"), {404}),
    "a byte order mark": (lambda: b"\xef\xbb\xbf" + question(), {BAD}),
    "UTF-16": (lambda: question().decode().encode("utf-16"), {BAD}),
    "a long model": (lambda: question(model="x" * MANY), {BAD, 404}),
    "a model of patterns": (lambda: question(model="*"), {404}),
    "a model of a path": (lambda: question(model="../../etc/passwd"), {404}),
    "n": (lambda: question(n=10**9), {OK, BAD}),
    "n beyond 64 bits": (lambda: question(n=10**30), {OK, BAD}),
    "max_tokens": (lambda: question(max_tokens=2**31 - 1), {OK, BAD}),
    "max_tokens beyond 64 bits": (lambda: question(max_tokens=2**64), {BAD}),
    "max_tokens below 0": (lambda: question(max_completion_tokens=-(2**63)), {BAD}),
    "10,000 messages": (lambda: question(messages=QUESTION["messages"] * 10_000), {OK, BAD}),
    "5,000 tools": (lambda: question(tools=[_tool(number) for number in range(5_000)]), {OK, BAD}),
    "100,000 fallbacks": (lambda: question(fallbacks=[MODEL] * 100_000), {OK, BAD}),
    "25 MiB": (lambda: question(user="x" * (25 << 20)), {TOO_LARGE}),
}
"""What is sent, and what it may be answered."""


@pytest.mark.parametrize("name", BODIES)
def test_bodies(stronghold: Stronghold, name: str) -> None:
    """Answered in time: refused as the client's fault, or passed on where it is a good question."""
    make, statuses = BODIES[name]
    begun_s = time.monotonic()
    answers = pour(stronghold, make())
    assert answers.first in statuses, answers.data[:2_000]
    assert time.monotonic() - begun_s < BOUND_S


@pytest.mark.parametrize("second", ['"model"', '"mod\\u0065l"', '"\\u006dodel"'])
def test_a_model_given_twice(stronghold: Stronghold, second: str) -> None:
    """However its name is spelt, no model is called that the key may not use: nothing is called at all."""
    key = Desk(stronghold).make(models=[MODEL])
    before = len(stronghold.provider.log())
    assert pour(stronghold, question(), key=key).first == OK
    assert len(stronghold.asked_since(before)) == 1
    first = json.dumps({"messages": QUESTION["messages"]})[:-1]
    for one, other in ((MODEL, PRIVATE), (PRIVATE, MODEL)):
        body = f'{first},"model":"{one}",{second}:"{other}"}}'.encode()
        assert pour(stronghold, body, key=key).first == BAD
    assert len(stronghold.asked_since(before)) == 1


HEADERS: Mapping[str, tuple[tuple[str, ...], set[int]]] = {
    "one of 70 KiB": (("x-long: " + "x" * 70_000,), {BAD, TOO_MANY_HEADERS}),
    "one of 10 MB": (("x-long: " + "x" * 10_000_000,), {BAD, TOO_MANY_HEADERS}),
    "200": (tuple(f"x-{number}: y" for number in range(200)), {BAD, TOO_MANY_HEADERS}),
    "100,000": (tuple(f"x-{number}: y" for number in range(100_000)), {BAD, TOO_MANY_HEADERS}),
    "a name of 50 KiB": (("x" * 50_000 + ": y",), {OK, BAD, TOO_MANY_HEADERS}),
    "a label of 50 KiB": (("x-request-id: " + "x" * 50_000,), {OK, BAD, TOO_MANY_HEADERS}),
    "traces": (("traceparent: " + "0" * 10_000, "tracestate: " + "a=b," * 5_000), {OK, BAD}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers(stronghold: Stronghold, name: str) -> None:
    """Too much is refused before anybody reads it."""
    lines, statuses = HEADERS[name]
    assert pour(stronghold, question(), *lines).first in statuses


@pytest.mark.parametrize("length", [40 * 1024, 55 * 1024, 70 * 1024])
def test_a_long_authorization(stronghold: Stronghold, length: int) -> None:
    """A key that long is none."""
    assert pour(stronghold, question(), key="x" * length).first in {401, TOO_MANY_HEADERS}


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """100 KB that become a thousand times as many."""
    return gzip.compress(bytes(BOMB_BYTES))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip", "br", "identity, gzip"])
def test_a_compressed_body(stronghold: Stronghold, bomb: bytes, encoding: str) -> None:
    """Nobody opens it: it is not JSON."""
    memory = Memory(stronghold)
    assert pour(stronghold, bomb, f"content-encoding: {encoding}").first in {BAD, TOO_LARGE, 415}
    assert max(memory.peak_mib().values()) < BOMB_MIB


GENERATE = "/weir.router.v1.Router/Generate"


def generate(stronghold: Stronghold, message: bytes, key: str, **options: Any) -> grpc.StatusCode:
    """How Generate ends."""
    with grpc.insecure_channel(stronghold.weir.edge, options=[("grpc.max_send_message_length", -1)]) as plain:
        channel: Any = plain  # its stubs want types of messages, and these are bytes
        metadata = (("authorization", bearer(key)),)
        try:
            list(channel.unary_stream(GENERATE)(message, timeout=BOUND_S, metadata=metadata, **options))
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.OUT_OF_RANGE,
}


@pytest.mark.parametrize("known", [True, False], ids=["with a key", "without"])
@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
def test_a_compressed_message(stronghold: Stronghold, how: grpc.Compression, *, known: bool) -> None:
    """A gRPC message far over the limit once opened is refused before it is, whoever sends it."""
    memory, key = Memory(stronghold), stronghold.weir.key if known else ""
    assert generate(stronghold, bytes(MESSAGE_BYTES), key, compression=how) == grpc.StatusCode.UNIMPLEMENTED
    assert max(memory.peak_mib().values()) < BOMB_MIB


MESSAGES: Mapping[str, Callable[[], bytes]] = {
    "33 MiB": lambda: bytes(33 << 20),
    "groups in groups": lambda: b"\x0b" * DEEP,
    "messages in messages": lambda: b"\x12\x7f" * DEEP,
    "a length beyond its end": lambda: b"\x0a\xff\xff\xff\xff\x07",
    "a number without end": lambda: b"\x08" + b"\xff" * DEEP,
    "a million unknown fields": lambda: b"\xf8\x07\x01" * MANY,
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(stronghold: Stronghold, name: str) -> None:
    """What is no message of the contract, or too much of one."""
    assert generate(stronghold, MESSAGES[name](), stronghold.weir.key) in REFUSED
