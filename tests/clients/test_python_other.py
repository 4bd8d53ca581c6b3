"""Embeddings, responses, models and errors with the official Python client."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import openai
import pytest

from tests.clients.polite_provider import PoliteProvider
from tests.clients.schema_check import SchemaCheck
from tests.clients.test_python_chat import HELLO, Dam, label
from tests.harness.running_weir import RunningWeir, wait_for

EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
TEXTS = ["a weir is a low dam", "żółw", "a weir is a low dam"]
LENGTHS = {"local-embed": 384, "text-embedding-3-small": 16}
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
BOTH = pytest.mark.parametrize("model", LENGTHS)
RESPONDING = pytest.mark.parametrize("model", ["local", "gpt-4", "chat-only"])


@BOTH
def test_embeddings_as_numbers(client: openai.OpenAI, check: SchemaCheck, model: str) -> None:
    """One vector for each text, in order; the same text has the same one."""
    answer = client.embeddings.create(model=model, input=TEXTS, encoding_format="float")
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert {len(item.embedding) for item in answer.data} == {LENGTHS[model]}
    assert answer.data[0].embedding == answer.data[2].embedding != answer.data[1].embedding
    assert answer.usage.prompt_tokens > 0
    assert check.checked == {EMBEDDINGS: 1}


@BOTH
def test_embeddings_in_base64(client: openai.OpenAI, model: str) -> None:
    """What the SDK asks for by itself: the same numbers as 32-bit floats."""
    numbers = client.embeddings.create(model=model, input=TEXTS[0], encoding_format="float").data[0].embedding
    (item,) = client.embeddings.create(model=model, input=TEXTS[0]).data
    assert item.embedding == pytest.approx(numbers, abs=1e-6)
    raw = client.embeddings.with_raw_response.create(model=model, input=TEXTS[0], encoding_format="base64")
    assert isinstance(json.loads(raw.text)["data"][0]["embedding"], str)


async def test_embeddings_async(async_client: openai.AsyncOpenAI) -> None:
    """Shorter vectors where the provider has them."""
    answer = await async_client.embeddings.create(model="text-embedding-3-small", input="x", dimensions=4)
    assert len(answer.data[0].embedding) == 4


@RESPONDING
def test_response(client: openai.OpenAI, check: SchemaCheck, model: str) -> None:
    """Passed on to a target that has it, translated for one that has not."""
    answer: Any = client.responses.create(model=model, input="Say hello.", max_output_tokens=16)
    assert answer.status in {"completed", "incomplete"}
    assert answer.output_text
    assert answer.usage.output_tokens > 0
    assert check.checked == {RESPONSES: 1}


@RESPONDING
def test_response_stream(client: openai.OpenAI, check: SchemaCheck, model: str) -> None:
    """Named events in order, numbered without a gap; the deltas are the final text."""
    events: list[Any] = list(
        client.responses.create(model=model, input="Say hello.", max_output_tokens=16, stream=True)
    )
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in {"response.completed", "response.incomplete"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == events[-1].response.output_text != ""
    assert check.checked == {f"{RESPONSES} event": len(events)}


async def test_response_async(async_client: openai.AsyncOpenAI) -> None:
    """The SDK's own accumulator takes the stream."""
    async with async_client.responses.stream(model="gpt-4", input="żółw") as stream:
        final = await stream.get_final_response()
    assert final.output_text == "You said: żółw"


@pytest.mark.parametrize("model", ["gpt-4", "chat-only"])
@pytest.mark.parametrize("stream", [False, True])
def test_response_tools(client: openai.OpenAI, model: str, stream: bool) -> None:  # noqa: FBT001 - a parameter
    """A function call, its output, and the answer to it."""
    asked: Any = client.responses.create(model=model, input="Weather?", tools=[WEATHER], stream=stream)
    response = list(asked)[-1].response if stream else asked
    (call,) = response.output
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "weather",
        {"city": "text"},
    )
    items: Any = [
        {"role": "user", "content": "Weather?"},
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    answer = client.responses.create(model=model, input=items, tools=[WEATHER])
    assert answer.output_text == "You said: rain"


@pytest.mark.parametrize("model", ["gpt-4", "chat-only"])
def test_response_parse(client: openai.OpenAI, model: str) -> None:
    """A JSON schema as `text.format`."""
    answer = client.responses.parse(model=model, input="Describe it.", text_format=Dam)
    assert answer.output_parsed == Dam(name="text", height_m=0.5, kind="weir")


def test_models(client: openai.OpenAI, check: SchemaCheck) -> None:
    """The list has every model once, and each can be shown, also one with slashes and colons in its name."""
    listed = {model.id: model for model in client.models.list()}
    assert {"local", "local-embed", "gpt-4", "auto", "org/model:tag"} <= set(listed)
    shown: Any = client.models.retrieve("org/model:tag")
    assert shown.id == "org/model:tag"
    assert shown.object == "model"
    assert client.models.retrieve("gpt-4").to_dict() == listed["gpt-4"].to_dict()
    assert check.checked == {"/v1/models": 1, "/v1/models/org/model:tag": 1, "/v1/models/gpt-4": 1}


async def test_models_async(async_client: openai.AsyncOpenAI) -> None:
    """The asynchronous client gets the same."""
    assert "local" in {model.id async for model in async_client.models.list()}


def test_unknown_model(client: openai.OpenAI) -> None:
    """NotFoundError at every endpoint."""
    calls: Any = [
        lambda: client.chat.completions.create(model="gpt-99", messages=HELLO),
        lambda: client.completions.create(model="gpt-99", prompt="x"),
        lambda: client.embeddings.create(model="gpt-99", input="x"),
        lambda: client.responses.create(model="gpt-99", input="x"),
        lambda: client.models.retrieve("gpt-99"),
    ]
    for call in calls:
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_bad_key(client: openai.OpenAI) -> None:
    """AuthenticationError."""
    with pytest.raises(openai.AuthenticationError) as caught:
        client.with_options(api_key="sk-nothing").models.list()
    assert caught.value.code == "invalid_api_key"


def test_a_key_that_may_use_less(weir: RunningWeir, client: openai.OpenAI) -> None:
    """PermissionDeniedError for any other model, also as a fallback; the list has only what the key may use."""
    created = weir.run("keys", "create", "--org", "acme", "--team", "search", "--model", "gpt-*")
    found = re.search(r"weir_\w+", created.stdout)
    assert found is not None, created
    limited = client.with_options(api_key=found[0])
    assert limited.chat.completions.create(model="gpt-4", messages=HELLO).choices[0].message.content
    assert [model.id for model in limited.models.list()] == ["gpt-4"]
    calls: Any = [
        lambda: limited.chat.completions.create(model="local", messages=HELLO),
        lambda: limited.chat.completions.create(
            model="gpt-4", messages=HELLO, extra_body={"fallbacks": ["local"]}
        ),
        lambda: limited.embeddings.create(model="local-embed", input="x"),
        lambda: limited.responses.create(model="local", input="x"),
        lambda: limited.models.retrieve("local"),
    ]
    for call in calls:
        with pytest.raises(openai.PermissionDeniedError):
            call()


def test_bad_request(client: openai.OpenAI) -> None:
    """BadRequestError that names the parameter: Weir's own, and a provider's."""
    with pytest.raises(openai.BadRequestError) as ours:
        client.chat.completions.create(model="gpt-4", messages=[])
    assert ours.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as theirs:
        client.chat.completions.create(model="bad-param", messages=HELLO)
    assert theirs.value.param == "temperature"


def test_rate_limit(client: openai.OpenAI) -> None:
    """RateLimitError with the provider's wait, which the SDK's own retries would honour."""
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="limited", messages=HELLO)
    assert caught.value.code == "rate_limit_exceeded"
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 7


def test_provider_down(client: openai.OpenAI) -> None:
    """InternalServerError with status 503."""
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="down", messages=HELLO)
    assert caught.value.status_code == 503


def test_clients_own_timeout(client: openai.OpenAI, provider: PoliteProvider) -> None:
    """APITimeoutError in the client; the provider's request is cancelled within a second."""
    mine = label()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=1).chat.completions.create(
            model="slow", messages=HELLO, extra_headers={"x-request-id": mine}
        )
    (asked,) = provider.asked(mine)
    assert asked.gone.wait(1)


def test_deadline_by_header(client: openai.OpenAI) -> None:
    """`x-weir-deadline-ms` ends a request as a timeout of the service: 504."""
    begun = time.monotonic()
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(
            model="slow", messages=HELLO, extra_headers={"x-weir-deadline-ms": "500"}
        )
    assert caught.value.status_code == 504
    assert time.monotonic() - begun < 5


async def test_leaving_a_stream(
    async_client: openai.AsyncOpenAI, provider: PoliteProvider, weir: RunningWeir
) -> None:
    """Closing a stream ends the provider's within a second; what was generated is settled as cancelled."""
    mine = label()
    stream: Any = await async_client.chat.completions.create(
        model="trickle", messages=[{"role": "user", "content": "x " * 200}], stream=True,
        extra_headers={"x-request-id": mine},
    )  # fmt: skip
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    (asked,) = provider.asked(mine)
    assert asked.gone.wait(1)
    row = wait_for("the attempt's row", lambda: next(iter(weir.entries(mine)), None))
    assert row["outcome"] == "cancelled"
