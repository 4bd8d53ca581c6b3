"""OpenAI's chat format: answers rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from dialects.chat_answer import ChatRendering
from dialects.rendering import AnswerHead, Bill, with_provider
from gen.weir.cloud.v1 import GenerateResponse as Piece
from gen.weir.type.v1 import FinishReason, ToolCallDelta, Usage
from meshkit.errors import UpstreamTruncated

LOCAL = AnswerHead(id="ab" * 16, created_s=1_700_000_000, model="smollm2", provider="local", native=False)
CLOUD = AnswerHead(id="ab" * 16, created_s=1_700_000_000, model="gpt", provider="cloud", native=True)
USAGE = Usage(input_tokens=2, output_tokens=3)
BILL = Bill(usage=USAGE, cost_nano_usd=None, target="local", attempts=1)
COUNTED = {
    "prompt_tokens": 2,
    "completion_tokens": 3,
    "total_tokens": 5,
    "weir": {"cost_nano_usd": None, "target": "local", "attempts": 1},
}
CALLS = [
    ToolCallDelta(index=0, id="call_1", name="now", arguments='{"a":'),
    ToolCallDelta(index=0, arguments="1}"),
    ToolCallDelta(index=1, id="call_2", name="f", arguments="{}"),
]
TEXT = [
    Piece(text="h"),
    Piece(text="é"),
    Piece(finished=True, finish_reason=FinishReason.LENGTH, usage=USAGE),
]
CALLING = [
    Piece(text="See.", tool_calls=CALLS[:1]),
    Piece(tool_calls=CALLS[1:]),
    Piece(finished=True, finish_reason=FinishReason.TOOL_CALLS, usage=USAGE),
]


def streamed(pieces: list[Piece], *, include_usage: bool = False, head: AnswerHead = LOCAL) -> list[Any]:
    """The events of an answer; `[DONE]` as None."""
    rendering = ChatRendering(include_usage=include_usage)
    data = b"".join(rendering.events(head, piece, BILL if piece.finished else None) for piece in pieces)
    events = data.decode().split("\n\n")
    assert events.pop() == ""
    return [None if event == "data: [DONE]" else json.loads(event.removeprefix("data: ")) for event in events]


def whole(pieces: list[Piece], head: AnswerHead = LOCAL) -> Any:
    """The answer as one object."""
    return json.loads(ChatRendering(include_usage=False).whole(head, pieces, BILL))


@pytest.mark.parametrize("pieces", [TEXT, CALLING])
def test_answers_have_openais_shape(pieces: list[Piece]) -> None:
    """Every object is one of OpenAI's own, and says who answered."""
    ChatCompletion.model_validate(whole(pieces), strict=False)
    *chunks, done = streamed(pieces, include_usage=True)
    assert done is None
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    assert {chunk["provider"] for chunk in chunks} == {whole(pieces)["provider"]} == {"local"}
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-" + "ab" * 16}


def test_a_whole_answer() -> None:
    """Text, finish reason and usage with what it cost."""
    answer = whole(TEXT)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hé", "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"] == COUNTED


def test_a_streamed_answer() -> None:
    """The role comes first, the finish reason last, usage behind it where it was asked for."""
    *chunks, last, done = streamed(TEXT)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": "h"}, {"content": "é"},
    ]  # fmt: skip
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"], done) == ({}, "length", None)
    assert all("usage" not in chunk for chunk in (*chunks, last))
    counted = streamed(TEXT, include_usage=True)[-2]
    assert (counted["choices"], counted["usage"]) == ([], COUNTED)


def test_an_empty_answer_has_a_role() -> None:
    """A model that ends at once answers with an empty text."""
    (empty,) = (Piece(finished=True, finish_reason=FinishReason.STOP),)
    assert whole([empty])["choices"][0]["message"]["content"] == ""
    assert streamed([empty])[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_tool_calls_of_a_whole_answer() -> None:
    """Their pieces are joined; an answer that is calls alone has no content."""
    message = whole(CALLING)["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": '{"a":1}'}},
        {"id": "call_2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]
    assert message["content"] == "See."
    assert whole(CALLING)["choices"][0]["finish_reason"] == "tool_calls"
    assert whole(CALLING[1:])["choices"][0]["message"]["content"] is None


def test_tool_calls_of_a_streamed_answer() -> None:
    """Id and name come once for each call, arguments as they come."""
    deltas = [chunk["choices"][0]["delta"] for chunk in streamed(CALLING)[:-2]]
    assert deltas[0] == {"role": "assistant", "content": "See."}
    assert [part for delta in deltas[1:] for part in delta["tool_calls"]] == [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "now", "arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": "1}"}},
        {"index": 1, "id": "call_2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]
    alone = streamed(CALLING[1:])[0]["choices"][0]["delta"]
    assert (alone["role"], alone["content"]) == ("assistant", None)


def test_a_providers_answer_is_its_own() -> None:
    """Its objects pass with `provider` in front and what it cost in its usage, and nothing else changed."""
    counted = b'{"id":"c2","x":1.0,"usage":{"prompt_tokens":2}}'
    pieces = [Piece(bodies=[b'{"id":"c1"}'], text="a"), Piece(bodies=[counted], usage=USAGE, finished=True)]
    assert streamed(pieces, head=CLOUD) == [
        {"provider": "cloud", "id": "c1"},
        {"provider": "cloud", "id": "c2", "x": 1.0, "usage": {"prompt_tokens": 2, "weir": COUNTED["weir"]}},
        None,
    ]
    assert (
        whole([Piece(bodies=[counted], usage=USAGE, finished=True)], CLOUD)["usage"]["weir"]["attempts"] == 1
    )


def test_a_broken_stream_ends_in_an_error() -> None:
    """Neither a finish reason nor `[DONE]` follows."""
    data = ChatRendering(include_usage=True).error(UpstreamTruncated("cut"))
    assert json.loads(data.removeprefix(b"data: "))["error"]["code"] == "upstream_truncated"
    assert data.count(b"\n\n") == 1


@given(st.dictionaries(st.text(max_size=5).filter(lambda key: key != "provider"), st.integers(), max_size=4))
def test_provider_is_put_in_front(fields: dict[str, int]) -> None:
    """Whatever the provider's object holds, ours comes first and nothing else changes."""
    compact = json.dumps(fields, separators=(",", ":")).encode()
    assert json.loads(with_provider(compact, "cloud")) == {"provider": "cloud", **fields}


@pytest.mark.parametrize("told", [True, False])
def test_usage_that_a_provider_omits_is_made_up_for(told: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A client that asked for usage gets it once: the provider's own, else the estimate."""
    said = b'{"id":"c","choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}'
    usage = [Piece(bodies=[said], usage=USAGE)] if told else []
    pieces = [Piece(bodies=[b'{"id":"c","choices":[{}]}'], text="h"), *usage, Piece(finished=True)]
    seen = streamed(pieces, include_usage=True, head=CLOUD)
    assert seen[-1] is None
    (counted,) = [event for event in seen[:-1] if "usage" in event]
    assert (counted["id"], counted["usage"]["completion_tokens"]) == ("c", 3)
    assert not any("usage" in event for event in streamed(pieces[:1] + pieces[-1:], head=CLOUD) if event)


def test_whole_answer_without_usage_gets_the_estimate() -> None:
    """What the request cost is told even where the provider counts nothing."""
    body = b'{"id":"c","choices":[{}]}'
    assert whole([Piece(bodies=[body], finished=True)], CLOUD)["usage"] == COUNTED


@pytest.mark.parametrize(("begun", "kept"), [("gen-x", "gen-x"), (7, "chatcmpl-" + "ab" * 16)])
def test_continued_answer_keeps_its_id(begun: Any, kept: str) -> None:
    """Chunks of a target that goes on with a provider's answer belong to it, and say no role again."""
    rendering = ChatRendering(include_usage=False)
    first = Piece(bodies=[json.dumps({"id": begun, "choices": []}).encode()], text="h")
    rendering.events(CLOUD, first, None)
    rest = rendering.events(LOCAL, Piece(text="i"), None) + rendering.events(
        LOCAL, Piece(finished=True), BILL
    )
    chunks = [json.loads(line[6:]) for line in rest.decode().split("\n\n") if line.startswith("data: {")]
    assert {chunk["id"] for chunk in chunks} == {kept}
    assert chunks[0]["choices"][0]["delta"] == {"content": "i"}
