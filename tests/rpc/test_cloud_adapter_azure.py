"""Azure OpenAI behind the cloud adapter: addresses, keys, tokens that are renewed, refusals."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncAzureOpenAI

from gen.weir.cloud.v1 import EmbedRequest, Endpoint, GenerateRequest, GenerateResponse, ListProvidersRequest
from gen.weir.cloud.v1.service import CloudAdapterClient
from meshkit.errors import ContentFiltered, UpstreamError, WeirError
from tests.fakes.adapting import adapting
from tests.fakes.provider import FakeProvider
from tests.fakes.provider_exchange import Seen

SOON_S = 20.0
KEY = "0123456789abcdef0123456789abcdef"
VERSION = "2024-10-21"


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """It serves Azure's paths too."""
    async with FakeProvider() as running:
        yield running


def azure(provider: FakeProvider, **more: Any) -> dict[str, Any]:
    known = {"family": "azure_openai", "base_url": provider.azure_endpoint, "api_version": VERSION}
    return known | ({} if "azure_ad_token_file" in more else {"api_key_env": "KEY"}) | more


def body_for(model: str, **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": [], **more}).encode()


async def ask(
    client: CloudAdapterClient, body: bytes, endpoint: Endpoint = Endpoint.CHAT_COMPLETIONS
) -> GenerateResponse:
    request = GenerateRequest(provider="azure", body=body, request_id="r", endpoint=endpoint)
    async with asyncio.timeout(SOON_S):
        (response,) = [response async for response in client.generate(request)]
    return response


async def failing(client: CloudAdapterClient, body: bytes) -> WeirError:
    with pytest.raises(WeirError) as caught:
        await ask(client, body)
    return caught.value


def authority(seen: Seen) -> dict[str, str]:
    return {name: seen.headers[name] for name in ("api-key", "authorization") if name in seen.headers}


@pytest.mark.parametrize(
    "model", ["instant", "my model/ü", "gpt-4.1:v=2", "50%", "a?b#c", "instant:chunks=2"]
)
async def test_addresses_and_headers_are_the_official_clients(
    provider: FakeProvider, tmp_path: Path, model: str
) -> None:
    """Each endpoint is asked at the URL and with the credential that Microsoft's own client would use."""
    official = AsyncAzureOpenAI(
        azure_endpoint=provider.azure_endpoint, api_version=VERSION, api_key=KEY, max_retries=0
    )
    async with official, adapting(tmp_path / "log", {"KEY": KEY}, azure=azure(provider)) as client:
        await official.chat.completions.create(model=model, messages=[])
        await official.completions.create(model=model, prompt="p")
        await official.responses.create(model=model, input="i")
        await official.embeddings.create(model=model, input="i")
        for endpoint in (Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.RESPONSES):
            assert (await ask(client, body_for(model), endpoint)).finished
        await client.embed(
            EmbedRequest(provider="azure", body=b'{"model":%b,"input":"i"}' % json.dumps(model).encode())
        )
    theirs, ours = provider.seen[:4], provider.seen[4:]
    assert [seen.path for seen in ours] == [seen.path for seen in theirs]
    assert [seen.model for seen in ours] == [model] * 4
    assert (
        [authority(seen) for seen in ours] == [authority(seen) for seen in theirs] == [{"api-key": KEY}] * 4
    )
    assert all(seen.azure for seen in ours)


async def test_deployments(provider: FakeProvider, tmp_path: Path) -> None:
    """A model's deployment is its address; only the Responses API names it in the body, whose rest stays as it was."""
    settings = azure(provider, deployments={"gpt-4o": "instant:chunks=1"})
    async with adapting(tmp_path / "log", {"KEY": KEY}, azure=settings) as client:
        sent = body_for("gpt-4o", temperature=1.0)
        assert (await ask(client, sent)).text == "It "
        assert (await ask(client, sent, Endpoint.RESPONSES)).text == "It "
        assert (await ask(client, body_for("instant:chunks=2"))).text == "It holds "
    chat, responses, unlisted = provider.seen
    assert (chat.deployment, chat.raw) == ("instant:chunks=1", sent)
    assert responses.path == "/openai/responses"
    assert responses.raw == b'{"model":"instant:chunks=1","messages":[],"temperature":1.0}'
    assert unlisted.deployment == "instant:chunks=2"


@pytest.mark.parametrize("body", [b"{}", b"[]", b"\xff", b'{"model":5}', body_for(".."), body_for(".")])
async def test_requests_without_an_address(provider: FakeProvider, tmp_path: Path, body: bytes) -> None:
    """A body that names no model, or one that would be another path, goes nowhere."""
    async with adapting(tmp_path / "log", {"KEY": KEY}, azure=azure(provider)) as client:
        error = await failing(client, body)
    assert error.details == {"delivered": "false", "sent": "false"}
    assert provider.seen == []


async def test_token_is_renewed_without_a_restart(provider: FakeProvider, tmp_path: Path) -> None:
    """A token from a file is shown as bearer; a renewed one is used from the next request on, and both are redacted."""
    path = tmp_path / "token"
    path.write_text("eyJhbGciOiJub25lIn0.first.x\n")
    path.chmod(0o600)
    log_path = tmp_path / "log"
    settings = azure(provider, azure_ad_token_file=str(path))
    async with adapting(log_path, azure=settings) as client:
        await ask(client, body_for("instant"))
        fresh = tmp_path / "fresh"
        fresh.write_text("opaque-second-token\n")
        fresh.replace(path)
        await ask(client, body_for("instant"))
        error = await failing(client, body_for("status:code=500"))
    assert [authority(seen) for seen in provider.seen] == [
        {"authorization": "Bearer eyJhbGciOiJub25lIn0.first.x"},
        {"authorization": "Bearer opaque-second-token"},
        {"authorization": "Bearer opaque-second-token"},
    ]
    assert "opaque" not in error.message + log_path.read_text()


async def test_missing_token_file(provider: FakeProvider, tmp_path: Path) -> None:
    """Without a token at the start the provider cannot be used, and says which file is missing."""
    settings = azure(provider, azure_ad_token_file=str(tmp_path / "none"))
    async with adapting(tmp_path / "log", azure=settings) as client:
        (listed,) = (await client.list_providers(ListProvidersRequest())).providers
    assert not listed.usable
    assert "azure_ad_token_file" in listed.problem
    assert "No such file" in listed.problem


async def test_content_filter(provider: FakeProvider, tmp_path: Path) -> None:
    """Azure's verdict on a prompt is the client's own error, with Azure's words."""
    async with adapting(tmp_path / "log", {"KEY": KEY}, azure=azure(provider)) as client:
        error = await failing(client, body_for("content_filter"))
    assert type(error) is ContentFiltered
    assert (error.details["status"], error.details["provider_code"]) == ("400", "content_filter")
    assert error.message == "The prompt was filtered"


async def test_unknown_api_version_is_the_providers_404(provider: FakeProvider, tmp_path: Path) -> None:
    """What Azure does not find is an upstream error that names the model."""
    async with adapting(tmp_path / "log", {"KEY": KEY}, azure=azure(provider)) as client:
        error = await failing(client, body_for("status:code=404"))
    assert type(error) is UpstreamError
    assert "'status:code=404'" in error.message


async def test_the_environment_has_no_say(
    provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's own variables change neither address nor credential."""
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "foreign-key")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "foreign-token")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_VERSION", "foreign")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-foreign")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "api-key: foreign\nx-foreign: 1")
    async with adapting(tmp_path / "log", {"KEY": KEY}, azure=azure(provider)) as client:
        assert (await ask(client, body_for("instant"))).finished
    seen = provider.seen[0]
    assert authority(seen) == {"api-key": KEY}
    assert not [value for value in seen.headers.values() if "foreign" in value]
