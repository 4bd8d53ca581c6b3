"""dialects.responses_reading and embedding_reading: what is read of a provider's bodies, and what is passed on."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects.embedding_reading import read_embeddings
from dialects.openai_fault import Fault
from dialects.provider_body import AnswerBody, MalformedAnswerError
from dialects.responses_reading import MAX_ITEMS, ResponsesReading
from gen.weir.type.v1 import FinishReason, ToolCallDelta, Usage

USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 8,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 17,
}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": ""}


def event(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, "sequence_number": 1, **fields}).encode()


def message(*texts: str) -> dict[str, Any]:
    parts = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": parts}


def response(status: str = "completed", *output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "object": "response",
        "model": "m",
        "status": status,
        "output": list(output),
        "error": None,
        **fields,
    }


def read(*events: bytes) -> list[AnswerBody]:
    reading = ResponsesReading()
    return [reading.read_event(data) for data in events]


def test_text_comes_from_deltas_alone() -> None:
    """What the deltas said is not said again by the events that repeat it."""
    bodies = read(
        event("response.created", response=response("in_progress")),
        event("response.output_item.added", output_index=0, item=message()),
        event("response.output_text.delta", output_index=0, content_index=0, delta="hé"),
        event("response.output_text.delta", output_index=0, content_index=0, delta=" you"),
        event("response.output_text.done", output_index=0, content_index=0, text="hé you"),
        event("response.output_item.done", output_index=0, item=message("hé you")),
        event("response.completed", response=response("completed", message("hé you"), usage=USAGE)),
    )
    assert [body.text for body in bodies] == ["", "", "hé", " you", "", "", ""]
    assert [body.content for body in bodies] == [False, True, True, True, True, True, True]
    assert [body.terminal for body in bodies] == [False] * 6 + [True]
    assert (bodies[0].model, bodies[-1].model) == ("m", "m")
    assert bodies[-1].finish_reason == FinishReason.STOP
    assert bodies[-1].usage == Usage(
        input_tokens=9, output_tokens=8, cached_input_tokens=4, reasoning_output_tokens=5
    )


def test_text_of_a_stream_without_deltas() -> None:
    """A model that cannot stream says everything in its last event."""
    bodies = read(
        event("response.created", response=response("in_progress")),
        event("response.completed", response=response("completed", message("a", "b"), message("c"))),
    )
    assert "".join(body.text for body in bodies) == "abc"


def test_function_calls() -> None:
    """Calls are numbered among themselves; beginning, arguments and end name each thing once."""
    other = {**CALL, "call_id": "call_2", "name": "find", "arguments": '{"b":2}'}
    done = {**CALL, "arguments": '{"a":1}'}
    bodies = read(
        event("response.output_item.added", output_index=0, item={"type": "reasoning", "summary": []}),
        event("response.output_item.added", output_index=1, item=CALL),
        event("response.function_call_arguments.delta", output_index=1, item_id="fc_1", delta='{"a"'),
        event("response.function_call_arguments.delta", output_index=1, item_id="fc_1", delta=":1}"),
        event("response.function_call_arguments.done", output_index=1, item_id="fc_1", arguments='{"a":1}'),
        event("response.output_item.done", output_index=1, item=done),
        event("response.output_item.added", output_index=2, item={**other, "arguments": ""}),
        event("response.output_item.done", output_index=2, item=other),
        event("response.completed", response=response("completed", {"type": "reasoning"}, done, other)),
    )
    assert [call for body in bodies for call in body.tool_calls] == [
        ToolCallDelta(index=0, id="call_1", name="look"),
        ToolCallDelta(index=0, arguments='{"a"'),
        ToolCallDelta(index=0, arguments=":1}"),
        ToolCallDelta(index=1, id="call_2", name="find"),
        ToolCallDelta(index=1, arguments='{"b":2}'),
    ]
    assert [body.tool_call for body in bodies[:3]] == [False, True, True]
    assert bodies[-1].finish_reason == FinishReason.TOOL_CALLS


def test_calls_that_the_provider_runs_itself() -> None:
    """A web search begins a tool call that nobody else could continue, and is no reason for the end."""
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    begun, end = read(
        event("response.output_item.added", output_index=0, item=search),
        event("response.completed", response=response("completed", search, message("a"))),
    )
    assert (begun.tool_call, begun.tool_calls) == (True, ())
    assert end.finish_reason == FinishReason.STOP


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("response.created", False),
        ("response.queued", False),
        ("response.in_progress", False),
        ("keepalive", False),
        ("", False),
        ("response.refusal.delta", True),
        ("response.reasoning_summary_text.delta", True),
        ("response.reasoning_text.delta", True),
        ("response.audio.delta", True),
        ("response.content_part.added", True),
        ("response.web_search_call.searching", True),
        ("response.a_kind_of_tomorrow", True),
    ],
)
def test_content(kind: str, *, content: bool) -> None:
    """Everything of an answer is content, known or not; its announcements and signs of life are none."""
    (body,) = read(event(kind, delta="x", response=response("in_progress")))
    assert (body.content, body.text, body.terminal) == (content, "", False)
    assert json.loads(body.passed_on)["type"] == kind


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"reason": "max_output_tokens"}, FinishReason.LENGTH),
        ({"reason": "content_filter"}, FinishReason.CONTENT_FILTER),
        ({"reason": "max_messages"}, FinishReason.LENGTH),
        (None, FinishReason.LENGTH),
    ],
)
def test_incomplete_is_an_end(details: Any, reason: FinishReason) -> None:
    """An answer that a limit or a filter ended is whole, in a stream and otherwise, and says why."""
    document = response("incomplete", message("a"), incomplete_details=details, usage=USAGE)
    (ended,) = read(event("response.incomplete", response=document))
    whole = ResponsesReading().read_whole(json.dumps(document).encode())
    for body in (ended, whole):
        assert (body.finish_reason, body.text) == (reason, "a")
        assert body.usage is not None
    assert ended.terminal


@pytest.mark.parametrize(
    ("failed", "fault"),
    [
        (
            event("response.failed", response=response("failed", error={"code": "server_error", "message": "no"})),
            Fault("no", code="server_error"),
        ),
        (event("response.failed", response=response("failed")), Fault("")),
        (event("response.failed"), Fault("")),
        (event("error", code="overloaded", message="slow", param=None), Fault("slow", code="overloaded")),
        (event("error", error={"type": "server_error", "message": "no"}), Fault("no", "server_error")),
        (event("error"), Fault("")),
        (b'{"error":{"message":"no","code":502}}', Fault("no", status=502)),
    ],
)  # fmt: skip
def test_failures(failed: bytes, fault: Fault) -> None:
    """A failed response and an error event are faults, in whichever form they come, and are not passed on."""
    (body,) = read(failed)
    assert (body.fault, body.passed_on, body.terminal) == (fault, b"", False)


def test_whole_answer() -> None:
    """A unary answer: the text of all its messages, its function calls, why it ended, and what it used."""
    call = {**CALL, "arguments": '{"a":1}'}
    document = response("completed", {"type": "reasoning"}, message("a", "b"), call, usage=USAGE)
    body = ResponsesReading().read_whole(json.dumps({**document, "provider": "x"}).encode())
    assert (body.text, body.model, body.choices) == ("ab", "m", (0,))
    assert list(body.tool_calls) == [ToolCallDelta(index=0, id="call_1", name="look", arguments='{"a":1}')]
    assert body.finish_reason == FinishReason.TOOL_CALLS
    assert body.usage is not None
    assert json.loads(body.passed_on) == document


def test_whole_answer_in_the_background() -> None:
    """A response that is yet to run is an answer that did not end."""
    body = ResponsesReading().read_whole(json.dumps(response("queued")).encode())
    assert (body.choices, body.finish_reason) == ((0,), FinishReason.UNSPECIFIED)


@pytest.mark.parametrize(
    "document",
    [
        response("failed", error={"code": "server_error", "message": "no"}),
        response("failed"),
        {"error": "no"},
    ],
)
def test_whole_failure(document: dict[str, Any]) -> None:
    """A response that failed is a fault."""
    assert ResponsesReading().read_whole(json.dumps(document).encode()).fault is not None


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"output":5}', b'{"output":[5]}', b'{"choices":[]}']
)
def test_what_is_no_response(body: bytes) -> None:
    """A body without a list of output is no response."""
    with pytest.raises(MalformedAnswerError):
        ResponsesReading().read_whole(body)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"type":"error","message":"\\ud800"}',
        b'{"type":"error","code":1e999}',
        event("response.output_item.added", item=CALL),
        event("response.output_item.added", output_index=0, item=5),
        event("response.function_call_arguments.delta", output_index=0, delta="x"),
    ],
)
def test_malformed_events(data: bytes) -> None:
    """An event that is no object, or refers to what was not begun, is malformed and not passed on."""
    with pytest.raises(MalformedAnswerError):
        read(data)


def test_calls_are_limited() -> None:
    """A provider cannot fill the memory with calls that it begins."""
    reading = ResponsesReading()
    for place in range(MAX_ITEMS):
        reading.read_event(event("response.output_item.added", output_index=place, item=CALL))
    with pytest.raises(MalformedAnswerError):
        reading.read_event(event("response.output_item.added", output_index=MAX_ITEMS, item=CALL))


_KINDS = st.sampled_from([
    "response.output_item.added", "response.output_item.done", "response.completed", "response.created", "error",
    "response.failed", "response.incomplete", "response.output_text.delta",
    "response.function_call_arguments.delta",
])  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
_FIELDS = st.sampled_from(["item", "response", "output_index", "delta", "error", "code", "message"])


@given(_KINDS, st.dictionaries(_FIELDS, _JSON))
def test_rubbish_never_escapes(kind: str, fields: dict[str, Any]) -> None:
    """Whatever the fields of an event hold, it is read or refused; nothing else is raised."""
    with contextlib.suppress(MalformedAnswerError):
        read(event(kind, **fields))


@given(st.lists(st.dictionaries(st.sampled_from(["type", "content", "arguments", "call_id", "name"]), _JSON)))
def test_rubbish_output_never_escapes(items: list[dict[str, Any]]) -> None:
    """So with the items of a whole answer."""
    document = response("completed", message("a"), {**CALL, "arguments": 5}, *items)
    assert ResponsesReading().read_whole(json.dumps(document).encode()).text.startswith("a")


def test_embeddings() -> None:
    """Vectors go through as sent, floats and base64 alike; usage, model and their number are read."""
    sent = (
        b'{"object":"list","data":[{"index":0,"embedding":[1.0,2e-05]},{"index":1,"embedding":"AACAPw=="}],'
        b'"model":"e","usage":{"prompt_tokens":3,"total_tokens":3},"provider":"x"}'
    )
    body = read_embeddings(sent)
    assert body.passed_on == sent.replace(b',"provider":"x"', b"")
    assert (body.usage, body.model, len(body.choices)) == (Usage(input_tokens=3), "e", 2)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data":5}', b'{"data":null}', b"<html>"])
def test_what_is_no_list_of_embeddings(body: bytes) -> None:
    """A body without a list of data is none."""
    with pytest.raises(MalformedAnswerError):
        read_embeddings(body)


def test_error_in_place_of_embeddings() -> None:
    """An error object is a fault."""
    assert read_embeddings(b'{"error":{"message":"no","code":429}}').fault == Fault("no", status=429)
