"""OpenAI's list of embeddings, rendered and read."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from dialects.embedding_answer import EmbeddingRendering, check_count, read_vectors, render
from dialects.rendering import AnswerHead, Bill
from gen.weir.cloud.v1 import GenerateResponse as Piece
from gen.weir.type.v1 import Usage
from meshkit.errors import UpstreamError

USAGE = Usage(input_tokens=7)
ONE = struct.pack("<3f", 0.5, -1.0, 0.1)
TWO = struct.pack("<3f", 0.0, 1e-30, 3e38)


def listed(*embeddings: object) -> bytes:
    """A provider's answer."""
    return json.dumps({
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(embeddings)],
    }).encode()  # fmt: skip


def test_floats() -> None:
    """OpenAI's own model accepts the list, and its numbers are exactly those of the vectors."""
    body = render([ONE, TWO], "minilm", USAGE, "float")
    answer = CreateEmbeddingResponse.model_validate_json(body, strict=True)
    assert [one.index for one in answer.data] == [0, 1]
    assert [struct.pack("<3f", *one.embedding) for one in answer.data] == [ONE, TWO]
    assert {name: value for name, value in json.loads(body).items() if name != "data"} == {
        "object": "list", "model": "minilm", "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }  # fmt: skip


def test_base64() -> None:
    """The vectors' little-endian bytes, as OpenAI's client decodes them."""
    data = json.loads(render([ONE, TWO], "minilm", USAGE, "base64"))["data"]
    assert [base64.b64decode(one["embedding"]) for one in data] == [ONE, TWO]
    assert [(one["object"], one["index"]) for one in data] == [("embedding", 0), ("embedding", 1)]


def test_a_targets_list_is_passed_on() -> None:
    """The target's own bytes, local or not, with `provider` in front and what it cost in the usage."""
    head = AnswerHead(id="0" * 32, created_s=1, model="minilm", provider="local", native=True)
    bill = Bill(usage=USAGE, cost_nano_usd=None, target="local-embed", attempts=2)
    body = render([ONE], "minilm", USAGE, "float")
    whole = EmbeddingRendering().whole(head, [Piece(bodies=[body], finished=True)], bill)
    CreateEmbeddingResponse.model_validate_json(whole, strict=True)
    assert whole.startswith(b'{"provider":"local","object":"list","data":[{')
    assert json.loads(whole) == {
        "provider": "local",
        **json.loads(body),
        "usage": {
            "prompt_tokens": 7,
            "total_tokens": 7,
            "weir": {"cost_nano_usd": None, "target": "local-embed", "attempts": 2},
        },
    }


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize(
    "vector", [b"", b"abc", b"\0" * (4 * 65_537), struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))]
)  # fmt: skip
def test_what_is_no_vector_is_not_rendered(vector: bytes, encoding: str) -> None:
    """A model that answers rubbish is a fault of the target, in either encoding."""
    with pytest.raises(UpstreamError):
        render([ONE, vector], "minilm", USAGE, "base64" if encoding == "base64" else "float")


FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.lists(FLOAT32, min_size=2, max_size=2), min_size=1, max_size=5))
def test_what_is_rendered_is_read(rows: list[list[float]]) -> None:
    """Either encoding comes back as the very same numbers."""
    vectors = [struct.pack("<2f", *row) for row in rows]
    assert read_vectors(render(vectors, "m", USAGE, "float"), len(rows)) == rows
    assert read_vectors(render(vectors, "m", USAGE, "base64"), len(rows)) == rows


def test_vectors_are_put_in_the_inputs_order() -> None:
    """The index counts, not the place; whole numbers are numbers."""
    body = b'{"data":[{"index":1,"embedding":[1,2]},{"index":0,"embedding":[0.5,0]}]}'
    assert read_vectors(body, 2) == [[0.5, 0.0], [1.0, 2.0]]


def test_either_encoding_in_one_answer() -> None:
    """A server that knows no base64 sends floats: both are read, as float32."""
    assert (
        read_vectors(listed([0.1], base64.b64encode(struct.pack("<f", 0.1)).decode()), 2)
        == [[struct.unpack("<f", struct.pack("<f", 0.1))[0]]] * 2
    )


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", 1),
        (b"[]", 1),
        (b"{}", 1),
        (b'{"data":null}', 1),
        (b'{"data":[]}', 1),
        (b'{"data":[{"embedding":[1.0]}]}', 1),
        (b'{"data":[{"index":0}]}', 1),
        (b'{"data":[{"index":0,"embedding":"\xff"}]}', 1),
        (b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 1),
        (b'{"data":[{"index":0,"embedding":[1.0]},{"index":0,"embedding":[1.0]}]}', 2),
        (b'{"data":[{"index":1,"embedding":[1.0]}]}', 1),
        (listed([1.0]), 2),
        (listed([1.0], [1.0]), 1),
        (listed([1.0], [1.0, 2.0]), 2),
        (listed([]), 1),
        (listed([None]), 1),
        (listed(["a"]), 1),
        (listed([1e39]), 1),
        (listed([0.0] * 65_537), 1),
        (listed("AAAA"), 1),
        (listed("AAAAAA=="[:-1]), 1),
        (listed("not base64!"), 1),
        (listed("né"), 1),
        (listed(""), 1),
        (listed(base64.b64encode(struct.pack("<f", float("nan"))).decode()), 1),
    ],
)
def test_rubbish_is_the_providers_fault(body: bytes, count: int) -> None:
    """Anything but one good vector for each input is UPSTREAM_ERROR."""
    with pytest.raises(UpstreamError):
        read_vectors(body, count)


def test_vectors_are_counted() -> None:
    """A list that is too short or too long is no success, whatever its vectors are; one that is no list is none."""
    check_count(listed([1.0], "AAAA"), 2)
    for body in (listed([1.0]), listed([1.0], [1.0], [1.0]), b"{}", b"[", b'{"data":7}'):
        with pytest.raises(UpstreamError):
            check_count(body, 2)


@given(st.binary(max_size=30), st.integers(0, 50))
def test_broken_answers_are_the_providers_fault(junk: bytes, at: int) -> None:
    """Bytes put into a good answer leave vectors or UPSTREAM_ERROR."""
    good = b'{"data":[{"index":0,"embedding":[1.0,2.0]},{"index":1,"embedding":"AAAAAAAAAAA="}]}'
    try:
        assert len(read_vectors(good[:at] + junk + good[at:], 2)) == 2
    except UpstreamError as error:
        assert error.message  # noqa: PT017 - good bytes may come out: what matters is that nothing else is raised
