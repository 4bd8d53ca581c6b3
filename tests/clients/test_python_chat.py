"""Chat completions and completions with the official Python client, local and cloud, held against its own models."""

from __future__ import annotations

import json
from typing import Any, Literal
from uuid import uuid4

import openai
import pytest
from pydantic import BaseModel

from tests.clients.polite_provider import PoliteProvider
from tests.clients.schema_check import SchemaCheck

HELLO: Any = [{"role": "user", "content": "Say hello."}]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
CLOCK: Any = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}
MODELS = pytest.mark.parametrize("model", ["local", "gpt-4"])


class Dam(BaseModel):
    """What is to be parsed."""

    name: str
    height_m: float
    kind: Literal["weir", "barrage"]


def label() -> str:
    """A request id of the test's own."""
    return f"clients-{uuid4().hex}"


@MODELS
def test_unary(client: openai.OpenAI, check: SchemaCheck, model: str) -> None:
    """A whole answer with usage; `provider` and `usage.weir` are all that Weir adds."""
    answer: Any = client.chat.completions.create(model=model, messages=HELLO, max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.provider == {"local": "local", "gpt-4": "cloud"}[model]
    assert "cost_nano_usd" in answer.usage.weir
    assert check.checked == {CHAT: 1}


@MODELS
def test_stream(client: openai.OpenAI, check: SchemaCheck, model: str) -> None:
    """Role first, text, one finish reason, and usage in a chunk of its own, which has Weir's cost in it."""
    stream = client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks: list[Any] = list(stream)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in choices)
    assert [choice.finish_reason for choice in choices if choice.finish_reason] in (["stop"], ["length"])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert "cost_nano_usd" in chunks[-1].usage.weir
    assert len({chunk.id for chunk in chunks}) == 1
    assert check.checked == {f"{CHAT} event": len(chunks)}


@MODELS
def test_stream_without_usage(client: openai.OpenAI, model: str) -> None:
    """Who does not ask for usage gets none, in no chunk."""
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, max_tokens=4, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@MODELS
async def test_async(async_client: openai.AsyncOpenAI, check: SchemaCheck, model: str) -> None:
    """The asynchronous client gets the same."""
    whole = await async_client.chat.completions.create(model=model, messages=HELLO, max_tokens=4)
    assert whole.choices[0].message.content
    stream = await async_client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=4, stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert check.checked == {CHAT: 1, f"{CHAT} event": len(chunks)}


def test_stream_helper(client: openai.OpenAI) -> None:
    """The SDK's own accumulator takes the stream, also of two parallel calls."""
    with client.chat.completions.stream(model="gpt-4", messages=HELLO, tools=[WEATHER, CLOCK]) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("weather", {"city": "text", "days": 1}),
        ("clock", {}),
    ]
    assert final.choices[0].finish_reason == "tool_calls"


def test_tools(client: openai.OpenAI) -> None:
    """A call, its result, and the answer to it; `parallel_tool_calls` reaches the provider."""
    asked = client.chat.completions.create(
        model="gpt-4", messages=HELLO, tools=[WEATHER, CLOCK], parallel_tool_calls=False
    )
    message = asked.choices[0].message
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    messages: Any = [*HELLO, message.model_dump(exclude_none=True), result]
    answer = client.chat.completions.create(model="gpt-4", messages=messages, tools=[WEATHER, CLOCK])
    assert answer.choices[0].message.content == "You said: rain"


def test_parse(client: openai.OpenAI) -> None:
    """`parse` sends a strict JSON schema and gets its object."""
    answer = client.chat.completions.parse(model="gpt-4", messages=HELLO, response_format=Dam)
    assert answer.choices[0].message.parsed == Dam(name="text", height_m=0.5, kind="weir")


def test_vision(client: openai.OpenAI, provider: PoliteProvider) -> None:
    """Parts of other kinds reach the provider as they were sent."""
    parts: Any = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    mine = label()
    answer = client.chat.completions.create(
        model="gpt-4", messages=[{"role": "user", "content": parts}], extra_headers={"x-request-id": mine}
    )
    assert answer.choices[0].message.content == "You said: What is it? [image_url]"
    assert provider.asked(mine)[0].body["messages"][0]["content"] == parts


@pytest.mark.parametrize("stream", [False, True])
def test_every_parameter_reaches_the_provider(
    client: openai.OpenAI, provider: PoliteProvider, stream: bool,  # noqa: FBT001 - a parameter of the test
) -> None:  # fmt: skip
    """The provider gets what the client sent, number for number; n and logprobs come back."""
    mine = label()
    fields: Any = {
        "n": 2, "logprobs": True, "top_logprobs": 1, "seed": 7, "stop": ["a", "b"], "temperature": 0.25, "top_p": 1,
        "presence_penalty": -2, "frequency_penalty": 0.5, "max_completion_tokens": 99, "user": "u", "store": False,
        "metadata": {"k": "v"}, "service_tier": "auto", "reasoning_effort": "low", "logit_bias": {"5": -100},
        "prediction": {"type": "content", "content": "x"}, "verbosity": "low",
    }  # fmt: skip
    answer: Any = client.chat.completions.create(
        model="gpt-4", messages=HELLO, stream=stream, extra_headers={"x-request-id": mine}, **fields
    )
    if stream:
        choices = [choice for chunk in answer for choice in chunk.choices]
        assert any(choice.logprobs for choice in choices)
    else:
        choices = answer.choices
        assert all(choice.logprobs.content[0].top_logprobs for choice in choices)
    assert {choice.index for choice in choices} == {0, 1}
    body = provider.asked(mine)[0].body
    assert fields.items() <= body.items()
    assert (body["messages"], body["model"]) == (HELLO, "gpt-4.1-mini")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}]},
            "messages",
        ),
        ({"tools": [WEATHER], "tool_choice": "required"}, "tool"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
            "response_format",
        ),
        ({"logprobs": True}, "logprobs"),
        ({"n": 2}, "n"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_local_model_cannot(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    """400 that names the parameter; nothing is silently ignored."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "local", "messages": HELLO, **fields})
    assert caught.value.param is not None
    assert caught.value.param.startswith(param)


@MODELS
def test_completions(client: openai.OpenAI, check: SchemaCheck, model: str) -> None:
    """The older endpoint, whole and streamed."""
    whole: Any = client.completions.create(model=model, prompt="A weir is", max_tokens=8)
    assert whole.choices[0].text
    assert whole.object == "text_completion"
    assert whole.usage.completion_tokens > 0
    assert whole.provider == {"local": "local", "gpt-4": "cloud"}[model]
    options: Any = {"stream_options": {"include_usage": True}}
    chunks: list[Any] = list(
        client.completions.create(model=model, prompt="A weir is", max_tokens=8, stream=True, **options)
    )
    texts = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.text for choice in texts)
    assert [choice.finish_reason for choice in texts if choice.finish_reason] in (["stop"], ["length"])
    assert chunks[-1].usage.completion_tokens > 0
    assert check.checked == {COMPLETIONS: 1, f"{COMPLETIONS} event": len(chunks)}


async def test_completions_async(async_client: openai.AsyncOpenAI) -> None:
    """Several prompts at once, as the provider has them."""
    whole = await async_client.completions.create(model="gpt-4", prompt=["one", "two"])
    assert [choice.text for choice in whole.choices] == ["one and so on", "two and so on"]


def test_headers(client: openai.OpenAI) -> None:
    """What Weir says of an answer stands in its headers; the client's own request id comes back."""
    mine = label()
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4", messages=HELLO, extra_headers={"x-request-id": mine}
    )
    assert raw.request_id == mine
    assert raw.headers["x-weir-target"] == "cloud"
    assert raw.headers["x-weir-route-reason"]
    assert raw.headers["x-weir-attempts"] == "1"
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert raw.parse().choices[0].message.content


def test_fallbacks(client: openai.OpenAI, provider: PoliteProvider) -> None:
    """`fallbacks` in the body: the next model answers, the answer says which, and no provider sees the field."""
    mine = label()
    raw = client.chat.completions.with_raw_response.create(
        model="down",
        messages=HELLO,
        extra_body={"fallbacks": ["gpt-4"]},
        extra_headers={"x-request-id": mine},
    )
    assert raw.parse().model == "gpt-4.1-mini"
    assert (raw.headers["x-weir-target"], raw.headers["x-weir-attempts"]) == ("cloud", "2")
    assert [asked.body["model"] for asked in provider.asked(mine)] == ["down", "gpt-4.1-mini"]
    assert not any("fallbacks" in asked.body for asked in provider.asked(mine))


def test_targets_by_header(client: openai.OpenAI) -> None:
    """`x-weir-targets` takes the plan's targets in the client's order."""
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=HELLO, max_tokens=4, extra_headers={"x-weir-targets": "local"}
    )
    assert raw.headers["x-weir-target"] == "local"
