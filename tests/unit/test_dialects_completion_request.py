"""OpenAI's older completion request, read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects.completion_request import PARAMETERS, read
from dialects.request import Endpoint
from gen.weir.type.v1 import Sampling
from meshkit.errors import InvalidRequest


def body(**fields: object) -> bytes:
    """A request with one prompt and more fields."""
    return json.dumps({"prompt": "Once", **fields}).encode()


def test_request_is_read() -> None:
    """Prompt, sampling, stream and fallbacks; none of it is more than any target can do."""
    request = read(
        body(
            model="m",
            max_tokens=5,
            temperature=0.5,
            top_p=0.5,
            stop=["a", "b"],
            seed=3,
            presence_penalty=1,
            frequency_penalty=-1,
            user="u",
            stream=True,
            stream_options={"include_usage": True},
            fallbacks=["other"],
        )
    )
    assert request.endpoint is Endpoint.COMPLETIONS
    assert (request.prompt, request.typed.model, request.typed.messages) == ("Once", "m", [])
    assert request.typed.sampling == Sampling(
        max_output_tokens=5,
        temperature=0.5,
        top_p=0.5,
        stop=["a", "b"],
        seed=3,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
    )
    assert (request.stream, request.include_usage, request.fallbacks) == (True, True, ("other",))
    assert (dict(request.needs), request.choices, request.prompt_bytes) == ({}, 1, 4)
    assert not request.can_be_continued


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"prompt": ["Once"]}, {}),
        ({"prompt": ["a", "b"]}, {"prompts": "prompt"}),
        ({"prompt": [1, 2]}, {"tokens": "prompt"}),
        ({"prompt": [[1, 2]]}, {"tokens": "prompt"}),
        ({"prompt": [[1], [2]]}, {"tokens": "prompt", "prompts": "prompt"}),
        ({"prompt": ""}, {"empty_prompt": "prompt"}),
        ({"suffix": "end"}, {"suffix": "suffix"}),
        ({"suffix": ""}, {}),
        ({"echo": True}, {"echo": "echo"}),
        ({"best_of": 2}, {"best_of": "best_of"}),
        ({"n": 2}, {"n": "n"}),
        ({"logprobs": 0}, {"logprobs": "logprobs"}),
        ({"logit_bias": {"50256": -100}}, {"logit_bias": "logit_bias"}),
        ({"echo": False, "best_of": 1, "n": 1, "logprobs": None, "logit_bias": {}, "suffix": None}, {}),
        ({"top_k": 5}, {"top_k": "top_k"}),
        ({"max_completion_tokens": 5}, {"max_completion_tokens": "max_completion_tokens"}),
        ({"logit_bias": {"1": 10**400}}, {"logit_bias": "logit_bias"}),
    ],
)
def test_needs(fields: dict[str, object], needs: dict[str, str]) -> None:
    """What not every target can do is collected with the parameter that asks for it; defaults ask for nothing."""
    assert dict(read(body(**fields)).needs) == needs


@pytest.mark.parametrize(
    ("fields", "prompt", "choices", "prompt_bytes"),
    [
        ({"prompt": "hé"}, "hé", 1, 3),
        ({"prompt": ["a", "bc"], "n": 3}, "a", 6, 3),
        ({"n": 2, "best_of": 5}, "Once", 5, 4),
        ({"prompt": [1, 2, 3]}, None, 1, 12),
        ({"prompt": [[1], [2, 3]]}, None, 2, 12),
        ({"suffix": "end"}, "Once", 1, 9),
    ],
)
def test_how_much_is_asked_for(
    fields: dict[str, object], prompt: str | None, choices: int, prompt_bytes: int
) -> None:
    """Answers that are made and not returned count too; a token number counts as four bytes."""
    request = read(body(**fields))
    assert (request.prompt, request.choices, request.prompt_bytes) == (prompt, choices, prompt_bytes)


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b"{}", "prompt"),
        (body(prompt=None), "prompt"),
        (body(prompt=[]), "prompt"),
        (body(prompt=7), "prompt"),
        (body(prompt=[[]]), "prompt[0]"),
        (body(prompt=["a", 1]), "prompt[1]"),
        (body(prompt=[1, [1]]), "prompt[1]"),
        (body(prompt=[1.5]), "prompt[0]"),
        (body(prompt=[True]), "prompt[0]"),
        (body(prompt=[1, -1]), "prompt[1]"),
        (body(prompt=[[1, 2**63]]), "prompt[0][1]"),
        (body(prompt=["a"] * 2_049), "prompt"),
        (body(prompt=[1] * 300_001), "prompt"),
        (body(n=0), "n"),
        (body(n=129), "n"),
        (body(best_of=0), "best_of"),
        (body(best_of=129), "best_of"),
        (body(n=3, best_of=2), "best_of"),
        (body(best_of="x"), "best_of"),
        (body(max_tokens=0), "max_tokens"),
        (body(max_tokens=-1, echo=True), "max_tokens"),
        (body(temperature=3), "temperature"),
        (body(stop=["a"] * 5), "stop"),
        (body(stream="yes"), "stream"),
        (body(stream_options=[]), "stream_options"),
        (body(model=1), "model"),
        (body(fallbacks="m"), "fallbacks"),
        (body(fallbacks=["m"] * 17), "fallbacks"),
        (b'{"prompt":"a","prompt":"b"}', "prompt"),
    ],
)
def test_bad_request_names_the_field(raw: bytes, param: str | None) -> None:
    """Every fault is INVALID_REQUEST, with the field where one is at fault."""
    with pytest.raises(InvalidRequest) as caught:
        read(raw)
    assert caught.value.param == param
    assert caught.value.message


def test_an_echoed_prompt_may_be_scored() -> None:
    """With `echo` a cap of zero tokens asks for the prompt's own probabilities, and is sent on."""
    request = read(body(echo=True, max_tokens=0, logprobs=0))
    assert dict(request.needs) == {"echo": "echo", "logprobs": "logprobs"}
    assert request.max_output_tokens is None
    assert json.loads(request.body("m", stream=False))["max_tokens"] == 0


def test_a_provider_gets_the_clients_bytes() -> None:
    """Only the top level is edited; usage is asked for in a stream, Weir's own parameter is removed."""
    raw = b'{"prompt":["a" ,"b"],"x":{"y" : 1.0},"fallbacks":["z"],"model":"auto","stream":true}'
    sent = read(raw).body("babbage", stream=True)
    assert b'"prompt":["a" ,"b"]' in sent
    assert b'"x":{"y" : 1.0}' in sent
    assert json.loads(sent) == {
        "prompt": ["a", "b"], "x": {"y": 1.0}, "model": "babbage", "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(PARAMETERS)) | st.text(max_size=4), JSON, max_size=8))
def test_whatever_is_sent_is_read_or_refused(fields: dict[str, object]) -> None:
    """No value of any parameter is a fault of ours."""
    try:
        request = read(json.dumps({"prompt": "a", **fields}).encode())
    except InvalidRequest:
        return
    assert json.loads(request.body("m", stream=request.stream))["model"] == "m"


@given(st.binary(max_size=40), st.integers(0, 60))
def test_broken_bodies_are_refused(junk: bytes, at: int) -> None:
    """Bytes put into a good body leave a body that is read or refused."""
    good = b'{"prompt":["a",[1,2]],"stop":["x"],"logit_bias":{"1":2},"n":1}'
    for raw in (junk, good[:at] + junk + good[at:], good[:at]):
        try:
            read(raw)
        except InvalidRequest as error:
            assert error.message  # noqa: PT017 - a good body may come out: what matters is that nothing else is raised
