"""OpenAI's Responses API, answers: every object is of OpenAI's own schema, and the official SDK reads all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from dialects.rendering import AnswerHead, Bill
from dialects.responses_answer import ResponsesRendering
from dialects.responses_request import read
from gen.weir.cloud.v1 import GenerateResponse as Piece
from gen.weir.type.v1 import FinishReason, ToolCallDelta, Usage
from meshkit.errors import UpstreamTruncated

ID = "0" * 32
MADE = AnswerHead(id=ID, created_s=1_700_000_000, model="local-model", provider="local", native=False)
NATIVE = AnswerHead(id=ID, created_s=1_700_000_000, model="gpt", provider="cloud", native=True)
USAGE = Usage(input_tokens=5, output_tokens=3, cached_input_tokens=2, reasoning_output_tokens=1)
BILL = Bill(usage=USAGE, cost_nano_usd=7, target="local", attempts=2)
WEIR = {"cost_nano_usd": 7, "target": "local", "attempts": 2}
ANY_EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
STOP = Piece(finish_reason=FinishReason.STOP, finished=True, usage=USAGE)


def rendering(**fields: Any) -> ResponsesRendering:
    """The rendering of an answer to a request with these fields."""
    return ResponsesRendering(read(json.dumps({"input": "hi", **fields}).encode()))


def streamed(pieces: Sequence[Piece], head: AnswerHead = MADE, **fields: Any) -> bytes:
    """The SSE of an answer."""
    made = rendering(stream=True, **fields)
    return b"".join(made.events(head, piece, BILL if piece.usage else None) for piece in pieces)


def parsed(sse: bytes) -> list[dict[str, Any]]:
    """The events, each strictly of OpenAI's schema and numbered from 0, its name that of its data."""
    events = []
    for number, text in enumerate(filter(None, sse.decode().split("\n\n"))):
        name, data = text.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        ANY_EVENT.validate_json(json.dumps(event), strict=True)
        events.append(event)
    return events


def client(sse: bytes, kind: str = "text/event-stream") -> openai.OpenAI:
    """The official SDK, which gets this answer to whatever it asks."""
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": kind}, content=sse)
    )
    return openai.OpenAI(
        api_key="k", base_url="http://x/v1", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


def call(index: int, arguments: str, *, begun: bool = False) -> ToolCallDelta:
    """A piece of a call; the first one of an index carries id and name."""
    return ToolCallDelta(
        index=index,
        id=f"call_{index}" if begun else "",
        name=f"f{index}" if begun else "",
        arguments=arguments,
    )


def test_text_is_told_in_the_standard_sequence() -> None:
    """Created, in progress, item, part, deltas, and the same outwards; the last event holds the whole response."""
    events = parsed(streamed([Piece(text="Hel"), Piece(text="lo"), STOP]))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []
    assert events[0]["response"]["usage"] is None
    assert [event["delta"] for event in events[4:6]] == ["Hel", "lo"]
    assert events[6]["text"] == "Hello"
    response = events[-1]["response"]
    assert response["id"] == f"resp_{ID}"
    assert response["status"] == "completed"
    assert response["provider"] == "local"
    assert response["output"] == [events[8]["item"]]
    assert response["output"][0]["content"][0]["text"] == "Hello"
    assert response["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 8,
        "weir": WEIR,
    }


def test_parallel_calls_may_come_mixed() -> None:
    """The message ends where calls begin; each call's deltas name its item, and all end at the end."""
    pieces = [
        Piece(text="Let me see"),
        Piece(tool_calls=[call(0, '{"a"', begun=True), call(1, "{", begun=True)]),
        Piece(tool_calls=[call(0, ":1}"), call(1, "}")]),
        Piece(finish_reason=FinishReason.TOOL_CALLS, finished=True, usage=USAGE),
    ]
    events = parsed(streamed(pieces))
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["message", "function_call", "function_call"]
    assert [item.get("arguments") for item in done] == [None, '{"a":1}', "{}"]
    assert [item.get("call_id") for item in done] == [None, "call_0", "call_1"]
    assert len({item["id"] for item in done}) == 3
    kinds = [event["type"] for event in events]
    added = [index for index, event in enumerate(events) if event.get("item", {}).get("name") == "f0"]
    assert kinds.index("response.output_text.done") < added[0]
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["output"] == done


def test_a_call_without_an_id_gets_one() -> None:
    """The client needs it for its answer."""
    events = parsed(streamed([Piece(tool_calls=[ToolCallDelta(name="f", arguments="{}")]), STOP]))
    assert events[-1]["response"]["output"][0]["call_id"] == f"call_{ID}_0"


@pytest.mark.parametrize(
    ("finish", "reason"),
    [(FinishReason.LENGTH, "max_output_tokens"), (FinishReason.CONTENT_FILTER, "content_filter")],
)
def test_a_cut_answer_is_incomplete(finish: FinishReason, reason: str) -> None:
    """By the reason that an earlier piece named too; the last item is incomplete with it."""
    pieces = [Piece(text="Hel", finish_reason=finish), Piece(finished=True, usage=USAGE)]
    last = parsed(streamed(pieces))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["status"] == "incomplete"
    assert last["response"]["incomplete_details"] == {"reason": reason}
    assert last["response"]["output"][-1]["status"] == "incomplete"
    whole = json.loads(rendering().whole(MADE, pieces, BILL))
    assert whole["incomplete_details"] == {"reason": reason}


def test_an_empty_answer_is_an_empty_message() -> None:
    """Nobody has to guess whether something was lost."""
    events = parsed(streamed([STOP]))
    assert [item["content"][0]["text"] for item in events[-1]["response"]["output"]] == [""]
    assert "response.output_text.delta" not in {event["type"] for event in events}


def test_a_piece_that_adds_nothing_begins_nothing() -> None:
    """Only a sign of life: the next target may still answer instead."""
    assert rendering().events(MADE, Piece(malformed_events=1), None) == b""
    assert len(parsed(streamed([Piece(), Piece(text="a"), STOP]))) == 9


def test_a_refusal_in_a_chat_answer_is_a_refusal_here() -> None:
    """It stands in no field of a piece but in the provider's own objects."""
    chunks = [b'{"choices":[{"index":0,"delta":{"refusal":"%s"}}]}' % word for word in (b"I will", b" not")]
    pieces = [Piece(bodies=[chunk], content=True) for chunk in chunks]
    events = parsed(streamed([*pieces, STOP]))
    assert [event["delta"] for event in events if event["type"] == "response.refusal.delta"] == [
        "I will",
        " not",
    ]
    (item,) = events[-1]["response"]["output"]
    assert item["content"] == [{"type": "refusal", "refusal": "I will not"}]
    chat = b'{"choices":[{"index":0,"message":{"content":null,"refusal":"No"}}]}'
    whole = json.loads(rendering().whole(MADE, [Piece(bodies=[chat]), STOP], BILL))
    assert whole["output"][0]["content"] == [{"type": "refusal", "refusal": "No"}]


def test_a_whole_answer_repeats_the_request() -> None:
    """What OpenAI's schema requires is there also where the request was silent."""
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
    asked = {
        "instructions": "be brief",
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "max_output_tokens": 9,
        "tools": [tool],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        "reasoning": {"effort": "low"},
        "user": None,
    }
    for fields in ({}, asked):
        body = rendering(**fields).whole(MADE, [Piece(text="a"), STOP], BILL)
        Response.model_validate_json(body, strict=True)
        answer = json.loads(body)
        assert {name: answer[name] for name in fields} == fields
        assert answer["tools"] == fields.get("tools", [])
        assert answer["parallel_tool_calls"] is True


def test_native_events_pass_with_their_names() -> None:
    """Other events stay the provider's bytes; those with the response get `provider`, the last one's usage `weir`."""
    delta = b'{"type":"response.output_text.delta","sequence_number":2,"delta":"a","x":1.0}'
    made = rendering()
    begun = b'{"type":"response.created","sequence_number":0,"response":{"id":"r","usage":null,"y":2.0}}'
    assert made.events(NATIVE, Piece(bodies=[begun, delta]), None) == (
        b"event: response.created\n"
        b'data: {"type":"response.created","sequence_number":0,"response":{"provider":"cloud","id":"r","usage":null,'
        b'"y":2.0}}\n\n'
        b"event: response.output_text.delta\ndata: " + delta + b"\n\n"
    )
    end = (
        b'{"type":"response.completed","sequence_number":3,"response":{"id":"r","usage":{"input_tokens":5}}}'
    )
    last = json.loads(
        made.events(NATIVE, Piece(bodies=[end], finished=True, usage=USAGE), BILL).split(b"data: ")[1]
    )
    assert last["response"]["usage"] == {"input_tokens": 5, "weir": WEIR}
    assert b'"sequence_number":4' in made.error(UpstreamTruncated("cut"))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"{}", b""),
        (b'{"type":7}', b""),
        (b'{"type":"a\\ndata: b"}', b""),
        (b'{"type":"response.new.delta"}', b"event: response.new.delta\n"),
        (b'{"type":"response.completed","response":null}', b"event: response.completed\n"),
    ],
)
def test_native_events_of_no_known_kind_pass(body: bytes, name: bytes) -> None:
    """Under their name where it is one, for it could hold an event of its own making."""
    assert rendering().events(NATIVE, Piece(bodies=[body]), BILL) == name + b"data: " + body + b"\n\n"


def test_whole_native_answer() -> None:
    """The provider's object with `provider` and `weir`."""
    body = b'{"id":"r","output":[],"usage":{"input_tokens":5}}'
    answer = json.loads(rendering().whole(NATIVE, [Piece(bodies=[body], finished=True)], BILL))
    assert answer == {
        "provider": "cloud",
        "id": "r",
        "output": [],
        "usage": {"input_tokens": 5, "weir": WEIR},
    }


def test_an_error_raises_in_the_official_sdk() -> None:
    """In a plain loop and in its accumulator; no `response.completed` follows."""
    made = rendering()
    sse = made.events(MADE, Piece(text="Hel"), None) + made.error(UpstreamTruncated("the stream broke"))
    error = parsed(sse)[-1]
    assert (error["type"], error["code"], error["message"]) == (
        "error",
        "upstream_truncated",
        "the stream broke",
    )
    with pytest.raises(openai.APIError, match="the stream broke") as caught:
        list(client(sse).responses.create(model="m", input="hi", stream=True))
    assert caught.value.code == "upstream_truncated"
    with (
        pytest.raises(openai.APIError, match="the stream broke"),
        client(sse).responses.stream(model="m", input="hi") as stream,
    ):
        stream.get_final_response()


PIECES = st.lists(
    st.one_of(
        st.builds(lambda text: Piece(text=text), st.text(max_size=8)),
        st.builds(lambda index, text: (index, text), st.integers(0, 3), st.text(max_size=8)),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=40)
@given(PIECES, st.sampled_from([FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS]))
def test_whatever_comes_the_sdk_accumulates_it(
    given_pieces: list[Piece | tuple[int, str]], finish: FinishReason
) -> None:
    """The SDK's own accumulator ends with the text and the arguments of the pieces, and so does the whole answer."""
    begun: set[int] = set()
    pieces: list[Piece] = []
    arguments: dict[int, str] = {}
    for piece in given_pieces:
        if isinstance(piece, Piece):
            pieces.append(piece)
            continue
        index, text = piece
        pieces.append(Piece(tool_calls=[call(index, text, begun=index not in begun)]))
        begun.add(index)
        arguments[index] = arguments.get(index, "") + text
    pieces.append(Piece(finish_reason=finish, finished=True, usage=USAGE))
    sse = streamed(pieces)
    last = parsed(sse)[-1]["response"]
    whole = json.loads(rendering().whole(MADE, pieces, BILL))
    assert whole == last
    text = "".join(piece.text for piece in pieces)
    with client(sse).responses.stream(model="m", input="hi") as stream:
        deltas = [event for event in stream if event.type.endswith(".delta")]
    assert "".join(event.delta for event in deltas if event.type == "response.output_text.delta") == text
    read_back = Response.model_validate(last)
    assert read_back.output_text == text
    calls = {item.call_id: item.arguments for item in read_back.output if item.type == "function_call"}
    assert calls == {f"call_{index}": said for index, said in arguments.items()}
    if finish is not FinishReason.LENGTH:
        assert stream.get_final_response().output_text == text


def test_an_answers_items_can_be_sent_back() -> None:
    """As loops with tools do: what the SDK read goes out again, and any chat target can go on with it."""
    pieces = [Piece(text="Let me see", tool_calls=[call(0, "{}", begun=True)]), STOP]
    with client(streamed(pieces)).responses.stream(model="m", input="hi") as stream:
        output = stream.get_final_response().output
    items = [
        item.model_dump(mode="json", exclude_unset=True, exclude=getattr(item, "__api_exclude__", None))
        for item in output
    ]
    answer = {"type": "function_call_output", "call_id": "call_0", "output": "7"}
    chat = read(json.dumps({"input": [{"role": "user", "content": "hi"}, *items, answer]}).encode()).chat
    assert chat is not None
    messages = json.loads(bytes(chat.fields["messages"]))
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert messages[1]["content"] == "Let me see"
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"] == "call_0"
