"""Readers of the cloud adapter: what is whole, what is cut, whatever the pieces."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen.weir.cloud.v1 import Endpoint, GenerateResponse
from gen.weir.type.v1 import FinishReason, ToolCallDelta, Usage
from services.cloud_adapter.forms import form_for
from services.cloud_adapter.read_stream import StreamReader
from services.cloud_adapter.read_whole import WholeReader


def event(
    delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **top: Any
) -> bytes:
    choices = [{"index": index, "delta": delta or {}, "finish_reason": finish}]
    return b"data: %b\n\n" % json.dumps({"choices": choices, "model": "m", **top}).encode()


DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
STREAM = (
    b": hello\n\n"
    + event({"role": "assistant", "content": ""})
    + event({"content": "It "})
    + b"data: {broken\n\n"
    + event({"content": "holds"}, usage=None)
    + event({}, "length")
    + USAGE
    + DONE
)


def reading(
    pieces: list[bytes], endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS, *, hide_usage: bool = False
) -> tuple[StreamReader, list[GenerateResponse]]:
    """Reads pieces and the clean end, as far as the reader wants them."""
    reader = StreamReader(10_000, form_for(endpoint, hide_usage=hide_usage))
    responses = []
    for piece in [*(piece for piece in pieces if piece), b""]:
        if reader.finished or reader.failure is not None:
            break
        responses.append(reader.take(piece))
    return reader, [response for response in responses if response is not None]


def summary(responses: list[GenerateResponse]) -> tuple[Any, ...]:
    return (
        [body for response in responses for body in response.bodies],
        "".join(response.text for response in responses),
        [response.finish_reason for response in responses if response.finish_reason],
        [response.usage for response in responses if response.usage],
        [response.model for response in responses if response.model],
        sum(response.malformed_events for response in responses),
        [response.finished for response in responses].count(True),
    )


@given(st.lists(st.integers(0, len(STREAM))), st.booleans())
def test_pieces_do_not_matter(cuts: list[int], hide: bool) -> None:  # noqa: FBT001 - hypothesis passes it by name
    """However a stream is cut into reads, the same is passed on and read, and the last response alone is finished."""
    bounds = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:stop] for start, stop in pairwise(bounds)]
    reader, responses = reading(pieces, hide_usage=hide)
    bodies, *rest = summary(responses)
    assert len(bodies) == (4 if hide else 5)
    assert rest == [
        "It holds", [FinishReason.LENGTH], [Usage(input_tokens=1, output_tokens=2)], ["m"], 1, 1,
    ]  # fmt: skip
    assert responses[-1].finished
    assert (reader.finished, reader.failure, reader.delivered) == (True, None, True)


@given(st.integers(0, len(STREAM) - len(DONE) - len(USAGE) - len(event({}, "length"))))
def test_every_cut_before_the_finish_is_a_failure(length: int) -> None:
    """A clean end anywhere before the finish reason is never taken for a whole answer."""
    reader, responses = reading([STREAM[:length]])
    assert not reader.finished
    assert reader.failure is not None
    assert not any(response.finished for response in responses)
    assert reader.delivered == any(response.text for response in responses)


def test_end_without_done() -> None:
    """A clean end after the finish reason is whole; the response that says so may hold nothing else."""
    reader, responses = reading([event({"content": "a"}), event({}, "stop")])
    assert reader.finished
    assert responses[-1] == GenerateResponse(finished=True)


def test_every_choice_must_end() -> None:
    """With n = 2 the stream is whole once both choices ended, in whatever order."""
    both = [event({"content": "a"}), event({"content": "b"}, index=1), event({}, "stop")]
    assert reading(both)[0].failure is not None
    assert reading([*both, event({}, "stop", index=1)])[0].finished


def test_nothing_counts_after_done() -> None:
    """What follows [DONE] is not read."""
    reader, responses = reading([event({"content": "a"}) + DONE + event({"content": "b"})])
    assert (summary(responses)[1], reader.finished) == ("a", True)


def test_done_without_an_answer() -> None:
    """[DONE] with no choice before it is no answer."""
    reader, responses = reading([DONE])
    assert (responses, reader.finished) == ([], False)
    assert reader.failure is not None


def test_what_came_before_an_error_is_kept() -> None:
    """Text and error in one read: the text is given, then the failure with the provider's words."""
    error = b'data: {"error":{"message":"no more","code":"server_error"}}\n\n'
    reader, (response,) = reading([event({"content": "a"}) + error + event({"content": "b"})])
    assert (response.text, reader.delivered) == ("a", True)
    assert reader.failure is not None
    assert reader.failure.fault is not None
    assert reader.failure.fault.message == "no more"


@pytest.mark.parametrize("name", [b"event: error\n", b""])
def test_error_by_name(name: bytes) -> None:
    """An event named `error` is one, whatever its data; without the name the same data is passed on."""
    reader, _ = reading([name + b'data: {"message":"no"}\n\n'])
    assert reader.failure is not None
    assert (reader.failure.fault is not None) == bool(name)


def test_tool_call_is_told_from_then_on() -> None:
    """Every response from the first part of a tool call on says so, and it counts as delivered."""
    call = event({"tool_calls": [{"index": 0, "function": {"name": "f"}}]})
    reader, responses = reading([event({"content": ""}), call, event({}, "tool_calls"), DONE])
    assert [response.tool_call_begun for response in responses] == [False, True, True, True]
    assert reader.delivered


def test_parts_of_tool_calls_are_told_in_order() -> None:
    """What a read brings of tool calls is told with it."""
    begun = event({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]})
    more = event({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})
    _, responses = reading([begun + more, event({}, "tool_calls"), DONE])
    assert responses[0].tool_calls == [
        ToolCallDelta(index=0, id="c", name="f"),
        ToolCallDelta(index=0, arguments="{}"),
    ]
    assert not any(response.tool_calls for response in responses[1:])


def test_content_is_told_with_what_holds_it() -> None:
    """The role and usage are no content; a thought and an end are."""
    pieces = [
        event({"role": "assistant", "content": ""}), event({"reasoning_content": "hm"}), event({}, "stop"), USAGE, DONE,
    ]  # fmt: skip
    reader, responses = reading(pieces)
    assert [response.content for response in responses] == [False, True, True, False, False]
    assert not reader.delivered


def named(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **fields}).encode())


CREATED = named("response.created", response={"model": "m", "status": "in_progress"})
DELTA = named("response.output_text.delta", output_index=0, delta="It ")
COMPLETED = named(
    "response.completed",
    response={"status": "completed", "output": [], "usage": {"input_tokens": 1, "output_tokens": 2}},
)
RESPONSE = CREATED + DELTA + DELTA + b"data: {broken\n\n" + COMPLETED


@given(st.lists(st.integers(0, len(RESPONSE))))
def test_pieces_of_a_response_do_not_matter(cuts: list[int]) -> None:
    """A response's events are read the same however they are cut; its own last event ends it, without [DONE]."""
    bounds = [0, *sorted(cuts), len(RESPONSE)]
    pieces = [RESPONSE[start:stop] for start, stop in pairwise(bounds)]
    reader, responses = reading(pieces, Endpoint.RESPONSES)
    bodies, *rest = summary(responses)
    assert [json.loads(body)["type"] for body in bodies] == [
        "response.created", "response.output_text.delta", "response.output_text.delta", "response.completed",
    ]  # fmt: skip
    assert rest == ["It It ", [FinishReason.STOP], [Usage(input_tokens=1, output_tokens=2)], ["m"], 1, 1]
    assert (reader.finished, reader.failure, responses[-1].finished) == (True, None, True)


@given(st.integers(0, len(RESPONSE) - len(COMPLETED)))
def test_every_cut_response_is_a_failure(length: int) -> None:
    """A clean end before the last event is never taken for a whole response."""
    reader, responses = reading([RESPONSE[:length]], Endpoint.RESPONSES)
    assert not reader.finished
    assert reader.failure is not None
    assert reader.delivered == any(response.text for response in responses)


def test_done_ends_no_response() -> None:
    """[DONE] in place of the last event does not make a response whole."""
    reader, _ = reading([CREATED, DELTA, DONE], Endpoint.RESPONSES)
    assert not reader.finished
    assert reader.failure is not None


def test_failed_response_after_text() -> None:
    """Text and the failure in one read: the text is given, then the failure with the provider's words."""
    failed = named("response.failed", response={"error": {"code": "server_error", "message": "no more"}})
    reader, (response,) = reading([CREATED + DELTA + failed], Endpoint.RESPONSES)
    assert (response.text, response.finished, reader.delivered) == ("It ", False, True)
    assert reader.failure is not None
    assert reader.failure.fault is not None
    assert reader.failure.fault.message == "no more"


def test_text_completions_end_as_chats_do() -> None:
    """Text completions are whole at [DONE]."""
    word = b'data: {"object":"text_completion","choices":[{"text":"It ","index":0,"finish_reason":null}]}\n\n'
    end = b'data: {"object":"text_completion","choices":[{"text":"","index":0,"finish_reason":"length"}]}\n\n'
    reader, responses = reading([word, word, end, DONE], Endpoint.COMPLETIONS)
    assert "".join(response.text for response in responses) == "It It "
    assert responses[2].finish_reason == FinishReason.LENGTH
    assert reader.finished
    assert reading([word, word], Endpoint.COMPLETIONS)[0].failure is not None


def test_huge_event_is_a_failure() -> None:
    """An event over the limit ends the reading."""
    reader, responses = reading([event({"content": "x" * 10_000})])
    assert (responses, reader.finished) == ([], False)
    assert reader.failure is not None
    assert "10000 bytes" in reader.failure.text


def whole(
    body: bytes, endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS, **options: Any
) -> tuple[WholeReader, GenerateResponse | None]:
    reader = WholeReader(300, form_for(endpoint), **options)
    for start in range(0, len(body), 50):
        assert reader.take(body[start : start + 50]) is None
        if reader.failure is not None:
            return reader, None
    return reader, reader.take(b"")


def test_whole_answer() -> None:
    """A unary answer is one response."""
    reader, response = whole(b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"model":"m"}')
    assert response is not None
    assert (response.text, response.finish_reason, response.finished) == ("hi", FinishReason.STOP, True)
    assert (reader.finished, reader.failure) == (True, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[{"message":',
        b'{"error":"no"}',
        b" " * 301,
    ],
)
def test_what_is_no_answer(body: bytes) -> None:
    """Empty, foreign, cut, without choices, an error, too long: a failure and no response."""
    reader, response = whole(body)
    assert (response, reader.finished) == (None, False)
    assert reader.failure is not None


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (Endpoint.COMPLETIONS, b'{"choices":[{"text":"hi","index":0,"finish_reason":"stop"}]}'),
        (
            Endpoint.RESPONSES,
            b'{"output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}],"status":"completed"}',
        ),
    ],
)
def test_whole_answers_of_other_endpoints(endpoint: Endpoint, body: bytes) -> None:
    """Text completions and responses are read whole, each in its own form only."""
    _, response = whole(body, endpoint)
    assert response is not None
    assert (response.text, response.finish_reason, response.content) == ("hi", FinishReason.STOP, True)
    other = Endpoint.RESPONSES if endpoint is Endpoint.COMPLETIONS else Endpoint.CHAT_COMPLETIONS
    reader, response = whole(body, other)
    assert response is None
    assert reader.failure is not None


def test_whole_answer_to_a_stream_is_a_failure() -> None:
    """A provider that was asked for a stream and sends one body has not answered."""
    reader, response = whole(b'{"choices":[{"message":{"content":"hi"}}]}', stream_expected=True)
    assert response is None
    assert reader.failure is not None
