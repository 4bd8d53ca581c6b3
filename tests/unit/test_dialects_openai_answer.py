"""dialects.openai_answer and openai_fault: what is read of a provider's bodies, and what is passed on."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects.openai_answer import read_answer
from dialects.openai_fault import Fault, read_fault
from dialects.provider_body import MalformedAnswerError
from gen.weir.type.v1 import FinishReason, ToolCallDelta, Usage


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **top: Any) -> bytes:
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return json.dumps({"id": "c", "choices": choices, **top}).encode()


def test_chunk_is_read_once() -> None:
    """Text, finish reason, usage with cached tokens, and model come out of one chunk."""
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    body = read_answer(chunk({"content": "hé"}, "length", model="m", usage=usage))
    assert (body.text, body.finish_reason, body.model) == ("hé", FinishReason.LENGTH, "m")
    assert body.usage == Usage(input_tokens=9, output_tokens=3, cached_input_tokens=4)
    assert (body.choices, body.ended_choices, body.tool_call) == ((0,), (0,), False)


def test_completion_is_read_like_a_chunk() -> None:
    """A unary answer's message is read as a chunk's delta is."""
    message = {"role": "assistant", "content": "hi"}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "model": "m"}
    body = read_answer(json.dumps(answer).encode())
    assert (body.text, body.finish_reason, body.usage) == ("hi", FinishReason.STOP, None)


def test_everything_but_provider_survives() -> None:
    """Unknown fields, number spellings and escapes are passed on as sent; the provider's own name is not."""
    sent = b'{ "provider":"x","id":"\\u00e9", "n":1.0, "big":1234567890123456789012,"choices":[],"x":{"provider":1e5}}'
    expected = b'{"id":"\\u00e9","n":1.0,"big":1234567890123456789012,"choices":[],"x":{"provider":1e5}}'
    assert read_answer(sent).passed_on == expected


def test_body_with_line_breaks_becomes_one_line() -> None:
    """A pretty-printed body cannot end the event it is put in."""
    pretty = json.dumps(json.loads(chunk({"content": "a\nb"})), indent=2).encode()
    passed_on = read_answer(pretty).passed_on
    assert b"\n" not in passed_on
    assert json.loads(passed_on) == json.loads(pretty)


def test_duplicate_keys_collapse() -> None:
    """What is read and what is passed on agree on the last of two equal keys."""
    body = read_answer(b'{"model":"a","choices":[],"model":"b"}')
    assert (body.model, body.passed_on) == ("b", b'{"model":"b","choices":[]}')


def test_hidden_usage() -> None:
    """The usage-only chunk is read and hidden; a null usage is removed; usage beside a choice stays."""
    counts = {"prompt_tokens": 1, "completion_tokens": 2}
    only = read_answer(json.dumps({"choices": [], "usage": counts}).encode(), hide_stream_usage=True)
    assert (only.passed_on, only.usage) == (b"", Usage(input_tokens=1, output_tokens=2))
    null = read_answer(chunk({"content": "a"}, usage=None), hide_stream_usage=True)
    assert b"usage" not in null.passed_on
    assert null.text == "a"
    beside = read_answer(chunk({"content": "a"}, usage=counts), hide_stream_usage=True)
    assert json.loads(beside.passed_on)["usage"] == counts


def test_usage_is_passed_on_unless_hidden() -> None:
    """A client that asked for usage gets every chunk with it, null ones too."""
    assert b'"usage":null' in read_answer(chunk(usage=None)).passed_on


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1},
        {"prompt_tokens": "9"},
        {"prompt_tokens": 2**64},
        [],
        7,
        {"completion_tokens": 1.5},
        {"prompt_tokens": 1, "completion_tokens_details": {"reasoning_tokens": -1}},
        {},
        {"total_tokens": 7},
    ],
)
def test_absurd_usage_is_none(usage: Any) -> None:
    """Usage that counts nothing sensible is the same as none, and the answer survives."""
    body = read_answer(chunk({"content": "a"}, usage=usage))
    assert (body.usage, body.text) == (None, "a")


@pytest.mark.parametrize(
    "usage",
    [
        {
            "prompt_tokens": 9,
            "completion_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
        },
        {
            "input_tokens": 9,
            "output_tokens": 8,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens_details": {"reasoning_tokens": 5},
        },
    ],
    ids=["chat", "responses"],
)
def test_usage_under_either_names(usage: dict[str, Any]) -> None:
    """Cached and reasoning tokens are told, under the names of either API."""
    assert read_answer(chunk(usage=usage)).usage == Usage(
        input_tokens=9, output_tokens=8, cached_input_tokens=4, reasoning_output_tokens=5
    )


def test_usage_without_details() -> None:
    """What a provider does not say is absent, not 0."""
    counts: dict[str, Any] = {
        "prompt_tokens": 9,
        "completion_tokens_details": None,
        "prompt_tokens_details": {},
    }
    usage = read_answer(chunk(usage=counts)).usage
    assert usage == Usage(input_tokens=9)
    assert usage is not None
    assert (usage.cached_input_tokens, usage.reasoning_output_tokens) == (None, None)


@pytest.mark.parametrize(
    ("delta", "content"),
    [
        ({}, False),
        ({"role": "assistant"}, False),
        ({"role": "assistant", "content": "", "refusal": None}, False),
        ({"role": "assistant", "content": None, "tool_calls": [], "reasoning_content": ""}, False),
        ({"content": "a"}, True),
        ({"content": [{"type": "thinking", "thinking": "hm"}]}, True),
        ({"reasoning_content": "hm"}, True),
        ({"reasoning": "hm", "content": ""}, True),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, True),
        ({"refusal": "no"}, True),
        ({"audio": {"data": "UklG"}}, True),
        ({"images": [{"type": "image_url"}]}, True),
        ({"tool_calls": [{"index": 0}]}, True),
        ({"function_call": {"arguments": "{"}}, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("index", [0, 1])
def test_content(delta: dict[str, Any], index: int, *, content: bool) -> None:
    """Any part of an answer counts, of whichever choice; the role alone, and what is empty, does not."""
    choices = [{"index": index, "delta": delta, "finish_reason": None}]
    assert read_answer(json.dumps({"choices": choices}).encode()).content is content


def test_finish_reason_is_content() -> None:
    """An end is a part of an answer; usage alone is none, and neither is an end that says that the answer broke."""
    assert read_answer(chunk(finish="stop")).content
    assert not read_answer(chunk(finish="error")).content
    assert not read_answer(b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}').content
    assert not read_answer(b'{"id":"c","prompt_filter_results":[]}').content


@pytest.mark.parametrize(
    ("delta", "calls"),
    [
        (
            {"tool_calls": [{"index": 1, "id": "c1", "function": {"name": "look", "arguments": ""}}]},
            [ToolCallDelta(index=1, id="c1", name="look")],
        ),
        (
            {"tool_calls": [{"index": 2, "id": None, "function": {"arguments": '{"a"'}}]},
            [ToolCallDelta(index=2, arguments='{"a"')],
        ),
        (
            {"tool_calls": [{"id": "a", "function": {"name": "f"}}, {"id": "b", "function": {"name": "g"}}]},
            [ToolCallDelta(index=0, id="a", name="f"), ToolCallDelta(index=1, id="b", name="g")],
        ),
        (
            {"tool_calls": [{"index": -1, "id": 7, "function": {"name": [], "arguments": {"a": 1}}}, 5]},
            [ToolCallDelta(index=0, arguments='{"a":1}')],
        ),
        ({"tool_calls": [{"function": "rubbish"}]}, [ToolCallDelta()]),
        ({"function_call": {"name": "f", "arguments": "{}"}}, [ToolCallDelta(name="f", arguments="{}")]),
        ({"content": "a", "tool_calls": None}, []),
    ],
    ids=str,
)
def test_tool_calls_are_read(delta: dict[str, Any], calls: list[ToolCallDelta]) -> None:
    """Parts of calls with index, id, name and arguments; what has no number is counted, and rubbish harms nobody."""
    assert list(read_answer(chunk(delta)).tool_calls) == calls


def test_tool_calls_of_other_choices_are_not_told() -> None:
    """The calls are choice 0's; that another choice holds one is told."""
    choices = [{"index": 1, "delta": {"tool_calls": [{"index": 0, "id": "c"}]}}]
    body = read_answer(json.dumps({"choices": choices}).encode())
    assert (body.tool_calls, body.tool_call) == ((), True)


def test_text_completion() -> None:
    """A text completion's text and end are read like a chat's."""
    choices = [
        {"text": "b", "index": 1, "logprobs": None, "finish_reason": None},
        {"text": "a", "index": 0, "logprobs": None, "finish_reason": "length"},
    ]
    body = read_answer(json.dumps({"object": "text_completion", "choices": choices}).encode())
    assert (body.text, body.finish_reason, body.content) == ("a", FinishReason.LENGTH, True)
    assert (body.choices, body.ended_choices) == ((1, 0), (0,))
    empty = [{"text": "", "index": 0, "finish_reason": None}]
    assert not read_answer(json.dumps({"choices": empty}).encode()).content


@pytest.mark.parametrize(
    ("delta", "begun"),
    [
        ({"tool_calls": [{"index": 0}]}, True),
        ({"function_call": {"name": "f"}}, True),
        ({"tool_calls": []}, False),
        ({"tool_calls": None, "function_call": None}, False),
    ],
)
def test_tool_call(delta: dict[str, Any], begun: bool) -> None:  # noqa: FBT001 - a table's column
    """A tool call is seen where one is, in either of OpenAI's spellings."""
    assert read_answer(chunk(delta)).tool_call is begun


def test_only_choice_zero_gives_text() -> None:
    """With n over 1 the text and finish reason are choice 0's; every choice is seen, and those that end."""
    choices = [
        {"index": 1, "delta": {"content": "b"}, "finish_reason": "length"},
        {"index": 0, "delta": {"content": "a"}, "finish_reason": None},
    ]
    body = read_answer(json.dumps({"choices": choices}).encode())
    assert (body.text, body.finish_reason) == ("a", FinishReason.UNSPECIFIED)
    assert (body.choices, body.ended_choices) == ((1, 0), (1,))


@pytest.mark.parametrize(
    ("named", "reason", "ended"),
    [
        ("stop", FinishReason.STOP, (0,)),
        ("function_call", FinishReason.TOOL_CALLS, (0,)),
        ("content_filter", FinishReason.CONTENT_FILTER, (0,)),
        ("eos", FinishReason.STOP, (0,)),
        ("error", FinishReason.UNSPECIFIED, ()),
        ("", FinishReason.UNSPECIFIED, ()),
    ],
)
def test_finish_reasons(named: str, reason: FinishReason, ended: tuple[int, ...]) -> None:
    """OpenAI's reasons map one to one, a foreign one is an end, and `error` is none."""
    body = read_answer(chunk(finish=named))
    assert (body.finish_reason, body.ended_choices) == (reason, ended)


def test_content_in_parts() -> None:
    """Reasoning models that send a list of parts give their text parts."""
    parts = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    assert read_answer(chunk({"content": parts})).text == "ab"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[]", b"null", b"7", b'"x"', b'{"a":', b'{"choices":5}', b'{"choices":[5]}',
        b'{"choices":[{"index":"0"}]}', b'{"a":"\xff"}', b'{"\xff":1}',
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"a":NaN}', b'{"error":1e999}', b'{"error":"\\ud800"}',
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_malformed(body: bytes) -> None:
    """What is no JSON object with choices, or no UTF-8, or too deep, is refused and never passed on."""
    with pytest.raises(MalformedAnswerError):
        read_answer(body)


@given(st.binary() | st.text().map(str.encode))
def test_rubbish_never_escapes(body: bytes) -> None:
    """Any bytes are read or refused; nothing else is raised."""
    with contextlib.suppress(MalformedAnswerError):
        read_answer(body, hide_stream_usage=True)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(
    st.dictionaries(st.text().filter(lambda key: key not in {"choices", "error", "usage", "provider"}), _JSON)
)
def test_passed_on_is_what_was_sent(document: dict[str, Any]) -> None:
    """Whatever JSON object comes in goes out equal."""
    passed_on = read_answer(json.dumps(document, indent=1).encode()).passed_on
    assert (json.loads(passed_on) if passed_on else {}) == document


def test_error_in_place_of_an_answer() -> None:
    """An error object is a fault; a null error is not."""
    body = read_answer(b'{"error":{"message":"no","type":"t","code":503,"param":null}}')
    assert body.fault == Fault("no", "t", "", None, 503)
    assert read_answer(b'{"error":null,"choices":[]}').fault is None


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b'{"error":{"message":"m","type":"t","code":"c","param":"p"}}', Fault("m", "t", "c", "p", None)),
        (b'{"error":"text"}', Fault("text")),
        (b'{"error":{"message":"m","code":"429"}}', Fault("m", "", "429", None, 429)),
        (
            b'{"error":{"message":"m","code":"content_filter","status":400,"innererror":{"code":"X"}}}',
            Fault("m", "", "content_filter", None, 400, "X"),
        ),
        (
            b'{"error":{"message":"m","code":"1429","status":"UNAVAILABLE","innererror":7}}',
            Fault("m", "", "1429"),
        ),
        (b'{"object":"error","message":"m","type":"t","code":400}', Fault("m", "t", "", None, 400)),
        (b'{"detail":"Not Found"}', Fault("Not Found")),
        (b'{"error":{"message":7,"code":true,"param":3}}', Fault("")),
        (b"<html>", Fault("")),
        (b"[]", Fault("")),
        (b"", Fault("")),
        (b"\xff", Fault("")),
        (b"[" * 100_000, Fault("")),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_faults_of_many_servers(body: bytes, fault: Fault) -> None:
    """OpenAI's, vLLM's and FastAPI's errors are read; anything else is an empty fault, never an exception."""
    assert read_fault(body) == fault
