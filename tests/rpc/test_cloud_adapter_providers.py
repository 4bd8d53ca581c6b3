"""Providers that cannot be used or reached, and the adapter as a process of its own."""

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from asyncio.subprocess import PIPE
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gen.weir.cloud.v1 import GenerateRequest, ListProvidersRequest
from gen.weir.cloud.v1.service import CloudAdapterClient
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import NoHealthyTarget, UpstreamError, UpstreamTimeout, WeirError
from tests.fakes.adapting import adapting
from tests.fakes.provider import FakeProvider

SOON_S = 20.0
ROOT = Path(__file__).resolve().parents[2]
CERTIFICATE = ROOT / "tests" / "fakes" / "provider_tls" / "certificate.pem"
"""Self-signed for 127.0.0.1, good for a hundred years; its key is no secret."""
SECRET = "sk-test-1234567890abcdef"


async def failing(client: CloudAdapterClient, provider: str, **changes: Any) -> WeirError:
    request = GenerateRequest(provider=provider, body=b'{"model":"instant"}', request_id="r", **changes)
    with pytest.raises(WeirError) as caught:
        async with asyncio.timeout(SOON_S):
            await anext(client.generate(request))
    return caught.value


def reachable(base_url: str, **more: Any) -> dict[str, Any]:
    return {"base_url": base_url, "api_key_env": "KEY", **more}


def bound_socket(backlog: int | None = None) -> socket.socket:
    """A port that nobody else takes; it listens if there is a backlog."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    if backlog is not None:
        taken.listen(backlog)
    return taken


async def test_connection_refused(tmp_path: Path) -> None:
    """Nobody listens: an upstream error that cost nothing."""
    with closing(bound_socket()) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        async with adapting(tmp_path / "log", {"KEY": SECRET}, away=reachable(url)) as client:
            error = await failing(client, "away")
    assert type(error) is UpstreamError
    assert error.details == {"delivered": "false", "sent": "false"}


async def test_name_does_not_resolve(tmp_path: Path) -> None:
    """A name that cannot exist: an upstream error that says so."""
    url = "https://provider.invalid/v1"
    async with adapting(tmp_path / "log", {"KEY": SECRET}, away=reachable(url)) as client:
        error = await failing(client, "away")
    assert type(error) is UpstreamError
    assert "does not resolve" in error.message
    assert error.details["sent"] == "false"


@pytest.mark.parametrize("named_by", ["configuration", "request"])
async def test_connect_limit(tmp_path: Path, named_by: str) -> None:
    """A TLS handshake that never comes ends at the provider's limit, or the request's own."""
    with closing(bound_socket(backlog=1)) as mute:
        url = f"https://127.0.0.1:{mute.getsockname()[1]}/v1"
        limit_s = {"connect_timeout_s": 0.2} if named_by == "configuration" else {}
        limit = {} if named_by == "configuration" else {"connect_timeout": timedelta(seconds=0.2)}
        async with adapting(tmp_path / "log", {"KEY": SECRET}, mute=reachable(url, **limit_s)) as client:
            begun = asyncio.get_running_loop().time()
            error = await failing(client, "mute", **limit)
            took_s = asyncio.get_running_loop().time() - begun
    assert type(error) is UpstreamTimeout
    assert error.details["sent"] == "false"
    assert 0.15 < took_s < 1.9  # the default is 2 s


async def test_certificates_are_never_waived(tmp_path: Path) -> None:
    """A certificate that nobody vouches for is refused before the request is sent; a named authority makes it good."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
    async with FakeProvider(tls=context) as provider:
        trusting = reachable(provider.base_url, ca_file=CERTIFICATE)
        async with adapting(
            tmp_path / "log", {"KEY": SECRET}, strict=reachable(provider.base_url), trusting=trusting
        ) as client:
            error = await failing(client, "strict")
            assert provider.seen == []
            request = GenerateRequest(provider="trusting", body=b'{"model":"instant"}')
            assert (await anext(client.generate(request))).finished
    assert type(error) is UpstreamError
    assert "certificate" in error.message
    assert error.details["sent"] == "false"


async def test_unusable_providers_are_listed_with_their_problem(tmp_path: Path) -> None:
    """No secret, an empty one, an unreadable file, a bad CA file: each says why, none says a value, none is asked."""
    empty = tmp_path / "empty"
    empty.touch()
    url = "https://provider.invalid/v1"
    providers: dict[str, dict[str, Any]] = {
        "none": {"base_url": url},
        "unset": {"base_url": url, "api_key_env": "NOT_SET"},
        "spaced": {"base_url": url, "api_key_env": "SPACED"},
        "missing": {"base_url": url, "api_key_file": str(tmp_path / "missing")},
        "empty": {"base_url": url, "api_key_file": str(empty)},
        "distrusted": {"base_url": url, "api_key_env": "KEY", "ca_file": str(empty)},
        "good": {"base_url": url, "api_key_env": "KEY"},
    }
    log_path = tmp_path / "log"
    async with adapting(log_path, {"KEY": SECRET, "SPACED": "sk-two words"}, **providers) as client:
        listed = (await client.list_providers(ListProvidersRequest())).providers
        error = await failing(client, "missing")
    assert [provider.name for provider in listed] == list(providers)
    assert [provider.name for provider in listed if provider.usable] == ["good"]
    problems = {provider.name: provider.problem for provider in listed}
    assert "neither api_key_file nor api_key_env" in problems["none"]
    assert "NOT_SET is not set" in problems["unset"]
    assert "No such file" in problems["missing"]
    assert "is empty" in problems["empty"]
    assert "ca_file" in problems["distrusted"]
    assert "two words" not in problems["spaced"]
    assert type(error) is NoHealthyTarget
    assert problems["missing"] in error.message
    assert "sk-t" not in log_path.read_text()


async def test_sandbox_needs_no_secret(tmp_path: Path) -> None:
    """A stand-in on loopback is usable without a secret, and is sent no authorization."""
    async with FakeProvider() as provider:
        sandbox = {"base_url": provider.base_url, "sandbox": True}
        async with adapting(tmp_path / "log", sandbox=sandbox) as client:
            (listed,) = (await client.list_providers(ListProvidersRequest())).providers
            assert (listed.usable, listed.sandbox) == (True, True)
            request = GenerateRequest(provider="sandbox", body=b'{"model":"instant"}')
            assert (await anext(client.generate(request))).finished
        assert "authorization" not in provider.seen[0].headers


async def test_connections_need_not_be_kept(tmp_path: Path) -> None:
    """With keepalive_s 0 each question has a connection of its own."""
    async with FakeProvider() as provider:
        lone = reachable(provider.base_url, keepalive_s=0)
        async with adapting(tmp_path / "log", {"KEY": SECRET}, lone=lone) as client:
            for _ in range(3):
                request = GenerateRequest(provider="lone", body=b'{"model":"instant"}')
                assert [response.finished async for response in client.generate(request)] == [True]
        assert [seen.connection for seen in provider.seen] == [0, 1, 2]


async def test_the_environment_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a proxy nor the SDK's own variables change where a request goes and what it carries."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-foreign-key")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-foreign")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "authorization: Bearer foreign\nx-foreign: 1")
    async with FakeProvider() as provider:
        async with adapting(tmp_path / "log", {"KEY": SECRET}, fake=reachable(provider.base_url)) as client:
            request = GenerateRequest(provider="fake", body=b'{"model":"instant"}')
            assert (await anext(client.generate(request))).finished
        headers = provider.seen[0].headers
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert not [value for value in headers.values() if "foreign" in value]


async def test_open_file_is_warned_about(tmp_path: Path) -> None:
    """A secret that others can read works and is warned about; plain http to another machine too."""
    key_file = tmp_path / "key"
    key_file.write_text(SECRET)
    key_file.chmod(0o644)
    log_path = tmp_path / "log"
    provider = {"base_url": "http://192.0.2.1/v1", "api_key_file": str(key_file)}
    async with adapting(log_path, open=provider) as client:
        (listed,) = (await client.list_providers(ListProvidersRequest())).providers
    assert listed.usable
    log = log_path.read_text()
    assert "can be read by others" in log
    assert "unencrypted" in log
    assert SECRET not in log


async def test_process_serves_and_ends_on_sigterm(tmp_path: Path) -> None:
    """`python -m services.cloud_adapter` serves what weir.yaml names, and SIGTERM ends it with 0."""
    config = tmp_path / "weir.yaml"
    home = tmp_path / "h"
    (home / "run").mkdir(parents=True)
    with closing(bound_socket()) as probe:
        metrics = probe.getsockname()[1]
    config.write_text(
        json.dumps(
            {
                "transport": "uds",
                "ports": {"metrics": metrics - 1},
                "providers": {"mine": reachable("https://p.invalid/v1")},
            }
        )
    )
    environment = {
        "WEIR_CONFIG": str(config),
        "WEIR_HOME": str(home),
        "KEY": SECRET,
        "PATH": os.environ["PATH"],
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cloud_adapter", env=environment, cwd=ROOT, stderr=PIPE
    )
    channel = open_channel(f"unix:{home}/run/mesh/cloud_adapter-0.sock")
    try:
        assert process.stderr is not None
        lines: list[bytes] = []
        async with asyncio.timeout(SOON_S):
            while not lines or b'"serving"' not in lines[-1]:
                lines.append(await process.stderr.readline())
                assert lines[-1], lines
        client = CloudAdapterClient(ChannelTransport(channel, mesh_codec()))
        (listed,) = (
            await client.list_providers(ListProvidersRequest(), timeout=timedelta(seconds=SOON_S))
        ).providers
        assert (listed.name, listed.usable) == ("mine", True)
        process.send_signal(signal.SIGTERM)
        rest = (await asyncio.wait_for(process.communicate(), SOON_S))[1]
        assert process.returncode == 0
        assert SECRET.encode() not in b"".join(lines) + rest
    finally:
        await channel.close()
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_bad_settings_end_the_process(tmp_path: Path) -> None:
    """A setting that cannot be used: one line that names it, and exit status 2."""
    config = tmp_path / "weir.yaml"
    config.write_text(json.dumps({"providers": {"mine": {"base_url": "ftp://p/v1", "colour": "red"}}}))
    ended = subprocess.run(
        [sys.executable, "-m", "services.cloud_adapter"],
        env={"WEIR_CONFIG": str(config), "PATH": os.environ["PATH"]},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "providers.mine.base_url" in ended.stderr
    assert "providers.mine.colour" in ended.stderr
    assert "Traceback" not in ended.stderr
