"""The misbehaving provider itself: what the official client makes of it, and what its log is evidence of."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import APIStatusError, AsyncAzureOpenAI, AsyncOpenAI, NotFoundError

from tests.fakes.provider import FakeProvider
from tests.fakes.provider_embeddings import vector
from tests.fakes.provider_exchange import words

SOON_S = 20.0


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """On a free port."""
    async with FakeProvider() as running:
        yield running


@pytest.fixture
async def official(provider: FakeProvider) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's client, which refuses whatever its models do not allow."""
    async with AsyncOpenAI(
        base_url=provider.base_url, api_key="sk-1234abcd", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


async def logged(provider: FakeProvider) -> list[dict[str, Any]]:
    """The log, as it is served."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(provider.azure_endpoint.rpartition(":")[2])
    )
    try:
        writer.write(b"GET /log HTTP/1.1\r\nhost: provider\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SOON_S)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        document = json.loads(await asyncio.wait_for(reader.readexactly(length), SOON_S))
    finally:
        writer.close()
    requests: list[dict[str, Any]] = document["requests"]
    return requests


async def test_responses_are_what_the_official_client_takes(official: AsyncOpenAI) -> None:
    """Whole and streamed responses pass the strict models, text, function call, usage and end."""
    whole = await official.responses.create(model="instant:chunks=3", input="hi")
    assert (whole.output_text, whole.status) == ("It holds what ", "completed")
    async with official.responses.stream(model="instant:chunks=3", input="hi") as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()
    assert final.output_text == "It holds what "
    assert final.usage is not None
    assert (final.usage.input_tokens, final.usage.output_tokens) == (9, 3)
    called = [
        event async for event in await official.responses.create(model="tool_call", input="hi", stream=True)
    ]
    assert called[-1].type == "response.completed"
    assert called[-1].response.output[0].type == "function_call"


async def test_completions_and_embeddings(provider: FakeProvider, official: AsyncOpenAI) -> None:
    """Text completions and embeddings too; the client decodes base64 to the same numbers."""
    completion = await official.completions.create(model="instant:chunks=2", prompt="hi")
    assert completion.choices[0].text == "".join(words(2))
    floats = await official.embeddings.create(model="instant", input=["a", "b"], encoding_format="float")
    async with AsyncOpenAI(
        base_url=provider.base_url, api_key="k"
    ) as lenient:  # the strict one takes no base64
        packed = await lenient.embeddings.create(model="instant", input=["a", "b"])
    assert [item.embedding for item in floats.data] == [vector("a"), vector("b")]
    assert [item.embedding for item in packed.data] == [vector("a"), vector("b")]


async def test_unknown_paths_and_azure_without_a_version(provider: FakeProvider) -> None:
    """What no endpoint is, and an Azure request without version or key, is refused as there."""
    async with (
        AsyncOpenAI(base_url=f"{provider.base_url}/x", api_key="k", max_retries=0) as elsewhere,
        AsyncOpenAI(base_url=f"{provider.azure_endpoint}/openai", api_key="k", max_retries=0) as versionless,
        AsyncAzureOpenAI(
            azure_endpoint=provider.azure_endpoint, api_version="1", api_key="k", max_retries=0
        ) as azure,
    ):
        with pytest.raises(NotFoundError):
            await elsewhere.audio.speech.create(model="m", input="i", voice="alloy")
        with pytest.raises(NotFoundError):
            await versionless.responses.create(model="instant", input="i")
        with pytest.raises(APIStatusError, match="401"):
            await azure.responses.create(model="instant", input="i", extra_headers={"api-key": ""})


async def test_log(provider: FakeProvider, official: AsyncOpenAI) -> None:
    """The log tells path, shape of the body, end of the key, times and bytes, and neither prompt nor key."""
    await official.chat.completions.create(
        model="instant:chunks=2",
        messages=[{"role": "user", "content": "secret prompt"}, {"role": "user", "content": "b"}],
    )
    await official.embeddings.create(model="instant", input="secret input", encoding_format="float")
    chat, embeddings = await logged(provider)
    assert (chat["path"], chat["endpoint"]) == ("/v1/chat/completions", "chat/completions")
    assert (chat["body_keys"], chat["messages"]) == (["messages", "model"], 2)
    assert (chat["key_end"], chat["answered"], chat["client_gone_ms"]) == ("abcd", True, None)
    assert chat["bytes_sent"] > 300
    assert 0 <= chat["answered_ms"] < 20_000
    assert embeddings["begun_ms"] >= chat["begun_ms"]
    assert embeddings["messages"] == 0
    assert "secret" not in json.dumps([chat, embeddings])
    assert "sk-1234" not in json.dumps([chat, embeddings])


@pytest.mark.parametrize("model", ["silent", "stall:after=2", "instant:gap_ms=60000"])
async def test_log_of_a_client_that_left(provider: FakeProvider, official: AsyncOpenAI, model: str) -> None:
    """It is told that and when a client left, and what it had been sent by then."""
    asking = asyncio.create_task(
        official.chat.completions.create(model=model, messages=[], stream=True, timeout=SOON_S)
    )
    seen = await asyncio.wait_for(provider.request(), SOON_S)
    if model == "silent":
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    else:
        stream = await asyncio.wait_for(asking, SOON_S)
        await anext(aiter(stream))
        await stream.close()
    await asyncio.wait_for(seen.gone.wait(), SOON_S)
    (entry,) = await logged(provider)
    assert (entry["answered"], entry["gone"], entry["answered_ms"]) == (False, True, None)
    assert 0 <= entry["client_gone_ms"] < 20_000
    assert (entry["bytes_sent"] > 0) == (model != "silent")


async def test_one_key_of_several_can_fail(provider: FakeProvider, official: AsyncOpenAI) -> None:
    """What a key is set to do goes before what the model's name says."""
    provider.key_behaviours["sk-1234abcd"] = "status:code=403"
    with pytest.raises(APIStatusError, match="403"):
        await official.responses.create(model="instant", input="i")
    other = await official.copy(api_key="sk-other").responses.create(model="instant", input="i")
    assert other.status == "completed"
