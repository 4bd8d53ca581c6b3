"""Tokens of OIDC issuers as Auth's callers see it: generated client, real server, keys by file and over HTTP."""

import asyncio
import json
import os
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gen.weir.auth.v1 import AuthenticateRequest, Key, Scope
from gen.weir.auth.v1.service import AuthClient
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import Forbidden, KeyExpired, KeyInvalid, UpstreamError, WeirError
from meshkit.server import MeshServer
from meshkit.settings import Listen, SettingsError
from meshkit.telemetry import Logger
from services.auth.adapters.jwks import FetchLimits, JwksFile, JwksUrl, key_sources
from services.auth.bootstrap import build
from services.auth.jwt.grants import key_id_of
from services.auth.jwt.ports import KeySourceError
from services.auth.jwt.settings import IssuerSettings, JwtBlock
from services.auth.settings import AuthBlock, AuthSettings
from tests.fakes.oidc import TLS, FakeIssuer, Fault, jwk, private_key, serving, settings_of

_SOON_S = 10.0
_LIMITS = FetchLimits(connect_s=2, total_s=5, max_bytes=512 * 1024)
_PATIENT_NOT = FetchLimits(connect_s=0.3, total_s=0.3, max_bytes=512 * 1024)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: sockets' names are limited to 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="weir-jwt-"))
    yield path
    shutil.rmtree(path)


def _over_http(url: str, limits: FetchLimits = _LIMITS, *, proxies: bool = False) -> JwksUrl:
    authorities = ssl.create_default_context() if url.startswith("https") else None
    return JwksUrl(url, limits, authorities, proxies=proxies)


async def test_keys_over_http() -> None:
    """The bytes as they are, again and again; no cookie, no credential, nothing packed is asked for."""
    async with serving(FakeIssuer()) as server:
        source = _over_http(server.url)
        assert await source.fetch() == server.issuer.text()
        server.issuer.published = server.issuer.published[:1]
        assert await source.fetch() == server.issuer.text()
        assert server.paths == ["/jwks", "/jwks"]
        sent = {name.lower(): value for name, value in server.headers[1].items()}
        assert sent["accept-encoding"] == "identity"
        assert not {"cookie", "authorization", "proxy-authorization"} & set(sent)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("status", "status is 500"),
        ("redirect", "status is 302"),
        ("huge", "longer than 524288 bytes"),
        ("packed", "packed"),
        ("cut", "broke"),
        ("slow", "no answer within the limit"),
        ("endless", "no answer within the limit"),
    ],
)
async def test_an_issuer_that_misbehaves_is_a_failed_fetch(fault: Fault, told: str) -> None:
    """Within the limits of time and size; a redirect is not followed, so no other address is ever asked."""
    async with serving(FakeIssuer()) as server:
        server.fault = fault
        limits = _PATIENT_NOT if fault in {"slow", "endless"} else _LIMITS
        with pytest.raises(KeySourceError, match=told):
            await _over_http(server.url, limits).fetch()
        assert server.paths == ["/jwks"]


async def test_nobody_there_is_a_failed_fetch() -> None:
    """A closed port, and a name that does not resolve; the reason says which, without addresses."""
    async with serving(FakeIssuer()) as server:
        url = server.url
    with pytest.raises(KeySourceError, match="refused"):
        await _over_http(url).fetch()
    with pytest.raises(KeySourceError, match="does not resolve"):
        await _over_http("https://issuer.invalid/keys").fetch()


async def test_only_a_trusted_certificate_will_do(tmp_path: Path) -> None:
    """The system's authorities, or those of ca_file in their place; a bad file is a fault at the start."""
    async with serving(FakeIssuer(), tls=True) as server:
        with pytest.raises(KeySourceError, match="certificate"):
            await _over_http(server.url).fetch()
        plain = server.url.replace("https", "http")
        with pytest.raises(KeySourceError):
            await _over_http(plain).fetch()
        trusting = settings_of(jwks_file=None, jwks_url=server.url, ca_file=TLS / "certificate.pem")
        (source,) = key_sources({"work": trusting}, JwtBlock()).values()
        assert await source.fetch() == server.issuer.text()
    no_certificate = tmp_path / "ca.pem"
    no_certificate.write_text("-----BEGIN NOTHING-----", encoding="utf-8")
    for path in (no_certificate, tmp_path / "missing.pem"):
        wrong = settings_of(jwks_file=None, jwks_url="https://x.example", ca_file=path)
        with pytest.raises(SettingsError, match=r"auth\.issuers\.work\.ca_file"):
            key_sources({"work": wrong}, JwtBlock())


async def test_the_environment_names_a_proxy_only_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """proxy_from_environment; otherwise variables that someone left behind change nothing."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with serving(FakeIssuer()) as server, serving(FakeIssuer(document=b"proxied")) as proxy:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/jwks"))
        assert await _over_http(server.url).fetch() == server.issuer.text()
        assert await _over_http(server.url, proxies=True).fetch() == b"proxied"


async def test_keys_by_file(tmp_path: Path) -> None:
    """As they are at that moment: written anew, put in its place, gone, too long, no file at all."""
    path = tmp_path / "jwks.json"
    source = JwksFile(path, max_bytes=100)
    with pytest.raises(KeySourceError, match="no such file"):
        await source.fetch()
    path.write_bytes(b"one")
    assert await source.fetch() == b"one"
    other = tmp_path / "other"
    other.write_bytes(b"two")
    other.replace(path)
    assert await source.fetch() == b"two"
    path.write_bytes(b"x" * 101)
    with pytest.raises(KeySourceError, match="longer than 100 bytes"):
        await source.fetch()
    path.unlink()
    os.mkfifo(path)
    for no_file in (path, tmp_path):
        async with asyncio.timeout(_SOON_S):
            with pytest.raises(KeySourceError, match="no such file"):
                await JwksFile(no_file, max_bytes=100).fetch()


@dataclass
class _Auth:
    client: AuthClient
    log: Path

    async def key(self, jwt: str) -> Key:
        """Whose token it is. Raises what Auth raised."""
        key = (await self.client.authenticate(AuthenticateRequest(jwt=jwt))).key
        assert key is not None
        return key

    async def until(self, jwt: str, refused: type[WeirError] | None) -> None:
        """Returns when the token is taken, or refused in that way."""
        async with asyncio.timeout(_SOON_S):
            while await self._refusal(jwt) is not refused:  # noqa: ASYNC110 - Auth itself looks at intervals
                await asyncio.sleep(0.02)

    async def _refusal(self, jwt: str) -> type[WeirError] | None:
        try:
            await self.key(jwt)
        except WeirError as error:
            return type(error)
        return None


@asynccontextmanager
async def _started(
    dsn: str, folder: Path, issuers: dict[str, IssuerSettings], **block: Any
) -> AsyncIterator[_Auth]:
    registry, log_path = CollectorRegistry(), folder / "auth.log"
    async with AsyncExitStack() as exits:
        descriptor = os.open(log_path, os.O_CREAT | os.O_WRONLY)
        exits.callback(os.close, descriptor)
        log = Logger("auth", descriptor)
        auth = AuthBlock(issuers=issuers, jwt=JwtBlock(**block))
        service = build(AuthSettings(postgres_dsn=dsn, auth=auth, home=folder), registry, log)
        address = f"unix:{folder}/auth.sock"
        server = MeshServer("auth", service, Listen(address, "", 0, timedelta(seconds=30)), registry, log)
        await server.start()
        exits.push_async_callback(server.stop)
        channel = open_channel(address)
        exits.push_async_callback(channel.close)
        yield _Auth(AuthClient(ChannelTransport(channel, mesh_codec())), log_path)


def _token(issuer: FakeIssuer, alg: str = "ES256", **changes: Any) -> str:
    now_s = int(time())
    return issuer.token(alg, **({"iat": now_s, "nbf": now_s, "exp": now_s + 300} | changes))


async def test_tokens_of_several_issuers(postgres_dsn: str, folder: Path) -> None:
    """One issuer's keys by URL, the other's by file; each verdict crosses the wire by its name."""
    other = FakeIssuer([jwk(private_key("ES256", 5).public_key(), "es256")])
    (folder / "jwks.json").write_bytes(other.text())
    async with serving(FakeIssuer()) as server:
        issuers = {
            "work": settings_of(jwks_file=None, jwks_url=server.url),
            "ci": settings_of(issuer="https://ci.example", jwks_file=folder / "jwks.json", scopes=["chat"]),
        }
        async with _started(postgres_dsn, folder, issuers) as auth:
            for alg in ("RS256", "ES256", "EdDSA"):
                token = _token(server.issuer, alg)
                key = await auth.key(token)
                assert (key.id, key.scopes) == (key_id_of("work", "ada"), [Scope.CHAT, Scope.EMBED])
            of_ci = _token(other, iss="https://ci.example", number=5)
            assert (await auth.key(of_ci)).id == key_id_of("ci", "ada")
            now_s = int(time())
            refused: list[tuple[str, type[WeirError]]] = [
                (_token(server.issuer, exp=now_s - 31), KeyExpired),
                (_token(server.issuer, realm_access=None), Forbidden),
                (_token(server.issuer, aud="else"), KeyInvalid),
                (_token(server.issuer, iss="https://ci.example"), KeyInvalid),
                (_token(other, number=5), KeyInvalid),
                ("x.y.z", KeyInvalid),
                ("x" * 100_000, KeyInvalid),
            ]
            for text, kind in refused:
                with pytest.raises(kind):
                    await auth.key(text)
            assert server.paths == ["/jwks"]
    log = (folder / "auth.log").read_text(encoding="utf-8")
    assert "issuer's keys read" in log
    assert not any(part in log for text in (token, of_ci) for part in text.split("."))


async def test_a_file_of_keys_is_followed(postgres_dsn: str, folder: Path) -> None:
    """Replaced, its old key's tokens are refused soon, and the new one's taken at once; broken, nothing changes."""
    path = folder / "jwks.json"
    issuer = FakeIssuer()
    path.write_bytes(issuer.text())
    async with _started(postgres_dsn, folder, {"work": settings_of(jwks_file=path)}, file_poll_s=0.1) as auth:
        old = _token(issuer)
        await auth.until(old, None)
        new_key = jwk(private_key("ES256", 1).public_key(), "new")
        (folder / "next").write_text(json.dumps({"keys": [new_key]}), encoding="utf-8")
        (folder / "next").replace(path)
        await auth.until(old, KeyInvalid)
        new = _token(issuer, number=1, header={"kid": "new"})
        assert await auth.key(new) is not None
        path.write_text("{", encoding="utf-8")
        await _logged(auth.log, "it is no JSON object")
        assert await auth.key(new) is not None


async def test_auth_starts_without_its_issuers(postgres_dsn: str, folder: Path) -> None:
    """Keys work as ever; tokens get no verdict until the issuer is there, and then they do."""
    async with serving(FakeIssuer()) as server:
        server.fault = "html"
        settings = settings_of(jwks_file=None, jwks_url=server.url)
        async with _started(postgres_dsn, folder, {"work": settings}, keys_refetch_s=1) as auth:
            token = _token(server.issuer)
            await auth.until(token, UpstreamError)
            server.fault = "none"
            await auth.until(token, None)


def _read(log: Path) -> str:
    return log.read_text(encoding="utf-8")


async def _logged(log: Path, text: str) -> None:
    async with asyncio.timeout(_SOON_S):
        while text not in _read(log):  # noqa: ASYNC110 - a log has no event for it
            await asyncio.sleep(0.02)
