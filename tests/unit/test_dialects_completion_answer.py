"""OpenAI's older completions, rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion

from dialects.completion_answer import CompletionRendering
from dialects.rendering import AnswerHead, Bill
from gen.weir.cloud.v1 import GenerateResponse as Piece
from gen.weir.type.v1 import FinishReason, Usage
from meshkit.errors import UpstreamStalled

LOCAL = AnswerHead(id="0" * 32, created_s=1_700_000_000, model="smollm2", provider="local", native=False)
CLOUD = AnswerHead(id="0" * 32, created_s=1_700_000_000, model="gpt", provider="cloud", native=True)
BILL = Bill(
    usage=Usage(input_tokens=2, output_tokens=3), cost_nano_usd=12, target="smollm2-local", attempts=1
)
WEIR = {"cost_nano_usd": 12, "target": "smollm2-local", "attempts": 1}
USAGE = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


def data_of(events: bytes) -> list[Any]:
    """The events' JSON; `[DONE]` as text."""
    assert events.endswith(b"\n\n")
    bodies = [event.removeprefix("data: ") for event in events.decode().split("\n\n")[:-1]]
    return [body if body == "[DONE]" else json.loads(body) for body in bodies]


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (FinishReason.STOP, "stop"),
        (FinishReason.LENGTH, "length"),
        (FinishReason.CONTENT_FILTER, "content_filter"),
        (FinishReason.UNSPECIFIED, "stop"),
    ],
)
def test_whole_answer_of_our_own(reason: FinishReason, name: str) -> None:
    """One object that OpenAI's own model accepts, with usage and what it cost."""
    pieces = [Piece(text="upon "), Piece(text="a time"), Piece(finish_reason=reason, finished=True)]
    whole = CompletionRendering(include_usage=False).whole(LOCAL, pieces, BILL)
    Completion.model_validate_json(whole, strict=True)
    assert json.loads(whole) == {
        "id": "cmpl-" + "0" * 32, "object": "text_completion", "created": 1_700_000_000,
        "model": "smollm2", "provider": "local",
        "choices": [{"text": "upon a time", "index": 0, "logprobs": None, "finish_reason": name}],
        "usage": {**USAGE, "weir": WEIR},
    }  # fmt: skip


def test_stream_of_our_own() -> None:
    """Text as it comes, the finish reason last, then usage for who asked for it, then `[DONE]`."""
    rendering = CompletionRendering(include_usage=True)
    assert rendering.events(LOCAL, Piece(), None) == b""
    first = rendering.events(LOCAL, Piece(text="upon "), None)
    last = rendering.events(
        LOCAL, Piece(text="a time", finish_reason=FinishReason.LENGTH, finished=True), BILL
    )
    one, two, usage, done = data_of(first + last)
    assert one["choices"] == [{"text": "upon ", "index": 0, "logprobs": None, "finish_reason": None}]
    assert two["choices"] == [{"text": "a time", "index": 0, "logprobs": None, "finish_reason": "length"}]
    assert (usage["choices"], usage["usage"]) == ([], {**USAGE, "weir": WEIR})
    assert done == "[DONE]"
    assert {(event["id"], event["object"], event["provider"]) for event in (one, two, usage)} == {
        ("cmpl-" + "0" * 32, "text_completion", "local")
    }
    Completion.model_validate(two, strict=True)
    Completion.model_validate(usage, strict=True)


def test_empty_answer_streams_its_end() -> None:
    """An answer without text still names its finish reason; usage comes only where it was asked for."""
    events = CompletionRendering(include_usage=False).events(
        LOCAL, Piece(finish_reason=FinishReason.STOP, finished=True), BILL
    )
    end, done = data_of(events)
    assert (end["choices"][0]["text"], end["choices"][0]["finish_reason"]) == ("", "stop")
    assert ("usage" in end, done) == (False, "[DONE]")


def test_a_providers_answer_is_its_own() -> None:
    """Its bytes come through, with `provider` in front and `weir` in the usage; nothing is made up."""
    choice = b'{"text":"a","index":0,"logprobs":{"tokens":["a"]},"finish_reason":"stop"}'
    body = b'{"id":"x","choices":[' + choice + b'],"usage":{"prompt_tokens":1,"x":[1.0]}}'
    whole = CompletionRendering(include_usage=False).whole(CLOUD, [Piece(bodies=[body], finished=True)], BILL)
    assert whole.startswith(b'{"provider":"cloud","id":"x","choices":[{"text":"a",')
    assert json.loads(whole)["usage"] == {"prompt_tokens": 1, "x": [1.0], "weir": WEIR}


def test_a_providers_stream_is_its_own() -> None:
    """Chunk by chunk, and `[DONE]` at its end."""
    rendering = CompletionRendering(include_usage=True)
    usage = b'{"choices":[],"usage":{"prompt_tokens":2}}'
    events = rendering.events(CLOUD, Piece(bodies=[b'{"id":"x"}'], text="a"), None)
    assert events == b'data: {"provider":"cloud","id":"x"}\n\n'
    last, done = data_of(
        rendering.events(CLOUD, Piece(bodies=[usage], usage=Usage(input_tokens=2), finished=True), BILL)
    )
    assert last == {"provider": "cloud", "choices": [], "usage": {"prompt_tokens": 2, "weir": WEIR}}
    assert done == "[DONE]"


def test_a_broken_stream_ends_in_an_error() -> None:
    """The error is OpenAI's object; neither a finish reason nor `[DONE]` follows."""
    (event,) = data_of(CompletionRendering(include_usage=True).error(UpstreamStalled("silent for 5 s")))
    assert event["error"]["code"] == "upstream_stalled"
