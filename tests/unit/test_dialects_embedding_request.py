"""Requests for embeddings, read: OpenAI's and the typed contract's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects.embedding_request import PARAMETERS, read, read_embed
from dialects.request import Endpoint
from gen.weir.router.v1 import EmbedRequest, RouteOptions
from meshkit.errors import InvalidRequest


def body(**fields: object) -> bytes:
    """A request with one input and more fields."""
    return json.dumps({"model": "m", "input": "hé", **fields}).encode()


def test_request_is_read() -> None:
    """One text; none of it is more than any target can do."""
    request = read(body(user="u", fallbacks=["other"], encoding_format="base64"))
    assert (request.endpoint, request.typed.model) == (Endpoint.EMBEDDINGS, "m")
    assert (request.inputs, request.encoding, request.prompt_bytes) == (("hé",), "base64", 3)
    assert (request.stream, request.include_usage, request.fallbacks) == (False, False, ("other",))
    assert (dict(request.needs), request.max_output_tokens, request.choices) == ({}, None, 1)
    assert not request.can_be_continued


@pytest.mark.parametrize(
    ("fields", "inputs", "choices", "prompt_bytes", "needs"),
    [
        ({"input": ["a", "bc"]}, ("a", "bc"), 2, 3, {}),
        ({"input": ["a"] * 2_048}, ("a",) * 2_048, 2_048, 2_048, {}),
        ({"input": [1, 2, 3]}, (), 1, 12, {"tokens": "input"}),
        ({"input": [[1], [2, 3]]}, (), 2, 12, {"tokens": "input"}),
        ({"encoding_format": "float"}, ("hé",), 1, 3, {}),
        ({"encoding_format": None, "dimensions": None, "user": None}, ("hé",), 1, 3, {}),
        ({"dimensions": 64}, ("hé",), 1, 3, {"dimensions": "dimensions"}),
        ({"input_type": "query"}, ("hé",), 1, 3, {"input_type": "input_type"}),
    ],
)
def test_inputs_and_needs(
    fields: dict[str, object],
    inputs: tuple[str, ...],
    choices: int,
    prompt_bytes: int,
    needs: dict[str, str],
) -> None:
    """Texts in order, a vector for each, and what not every target can do; a token number counts as four bytes."""
    request = read(body(**fields))
    assert (request.inputs, request.choices, request.prompt_bytes) == (inputs, choices, prompt_bytes)
    assert request.encoding == "float"
    assert dict(request.needs) == needs


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"", None),
        (b"{}", "input"),
        (b'{"input":"a"}', "model"),
        (body(model=""), "model"),
        (body(model=1), "model"),
        (body(input=None), "input"),
        (body(input=""), "input"),
        (body(input=[]), "input"),
        (body(input=[""]), "input[0]"),
        (body(input=["a", ""]), "input[1]"),
        (body(input=["a", 1]), "input[1]"),
        (body(input=[[1], []]), "input[1]"),
        (body(input={"text": "a"}), "input"),
        (body(input=["a"] * 2_049), "input"),
        (body(encoding_format="int8"), "encoding_format"),
        (body(encoding_format=7), "encoding_format"),
        (body(dimensions=0), "dimensions"),
        (body(dimensions=65_537), "dimensions"),
        (body(dimensions="64"), "dimensions"),
        (body(fallbacks=["m"] * 17), "fallbacks"),
    ],
)
def test_bad_request_names_the_field(raw: bytes, param: str | None) -> None:
    """Every fault is INVALID_REQUEST, with the field where one is at fault."""
    with pytest.raises(InvalidRequest) as caught:
        read(raw)
    assert caught.value.param == param
    assert caught.value.message


def test_a_provider_gets_the_clients_bytes() -> None:
    """Only the model's name and Weir's own parameter are edited; nothing of streams is put in."""
    sent = read(body(input=["a", "b"], fallbacks=["z"], x=1.5)).body("text-embedding", stream=False)
    assert json.loads(sent) == {"model": "text-embedding", "input": ["a", "b"], "x": 1.5}


def test_typed_request_is_read() -> None:
    """Texts and length; a provider is asked for base64. What the route says is read elsewhere."""
    route = RouteOptions(targets=["t"], fallbacks=["other"])
    request = read_embed(EmbedRequest(model="m", inputs=["a", "bé"], dimensions=64, route=route))
    assert (request.endpoint, request.typed.model) == (Endpoint.EMBEDDINGS, "m")
    assert (request.inputs, request.encoding, request.prompt_bytes) == (("a", "bé"), "base64", 4)
    assert (dict(request.needs), request.fallbacks) == ({"dimensions": "dimensions"}, ())
    assert json.loads(request.body("e", stream=False)) == {
        "model": "e", "input": ["a", "bé"], "dimensions": 64, "encoding_format": "base64",
    }  # fmt: skip
    assert dict(read_embed(EmbedRequest(model="m", inputs=["a"])).needs) == {}


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (EmbedRequest(inputs=["a"]), "model"),
        (EmbedRequest(model="m"), "inputs"),
        (EmbedRequest(model="m", inputs=["a"] * 2_049), "inputs"),
        (EmbedRequest(model="m", inputs=["a", ""]), "inputs[1]"),
        (EmbedRequest(model="m", inputs=[""]), "inputs[0]"),
        (EmbedRequest(model="m", inputs=["a"], dimensions=0), "dimensions"),
    ],
)
def test_bad_typed_request(request_: EmbedRequest, param: str) -> None:
    """Typed requests are checked like the others, under the contract's own names."""
    with pytest.raises(InvalidRequest) as caught:
        read_embed(request_)
    assert caught.value.param == param


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(PARAMETERS)) | st.text(max_size=4), JSON, max_size=8))
def test_whatever_is_sent_is_read_or_refused(fields: dict[str, object]) -> None:
    """No value of any parameter is a fault of ours."""
    try:
        request = read(body(**fields))
    except InvalidRequest:
        return
    assert json.loads(request.body("m", stream=False))["model"] == "m"
    assert request.inputs or "tokens" in request.needs


@given(st.binary(max_size=40), st.integers(0, 60))
def test_broken_bodies_are_refused(junk: bytes, at: int) -> None:
    """Bytes put into a good body leave a body that is read or refused."""
    good = b'{"model":"m","input":["a",[1,2]],"dimensions":3,"encoding_format":"float"}'
    for raw in (junk, good[:at] + junk + good[at:], good[:at]):
        try:
            read(raw)
        except InvalidRequest as error:
            assert error.message  # noqa: PT017 - a good body may come out: what matters is that nothing else is raised
