"""Where issuers publish their keys: a URL, or a file."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from meshkit.settings import SettingsError
from services.auth.jwt.ports import KeySource, KeySourceError
from services.auth.jwt.settings import IssuerSettings, JwtBlock

_OK: Final = 200
_HEADERS: Final = {
    "accept": "application/jwk-set+json, application/json",
    # A packed body could be a thousand times as long as it looks.
    "accept-encoding": "identity",
}
_FAILURES: Final = (
    (aiohttp.ConnectionTimeoutError, "no connection within the limit"),
    (TimeoutError, "no answer within the limit"),
    (aiohttp.ClientConnectorDNSError, "its name does not resolve"),
    (aiohttp.ClientConnectorCertificateError, "its certificate is not valid"),
    (aiohttp.ClientSSLError, "the TLS handshake failed"),
    (aiohttp.ClientConnectorError, "the connection was refused or is not possible"),
    (aiohttp.ClientResponseError, "the answer is no HTTP"),
)
"""aiohttp's errors, the narrower first. Their own texts stay out of the log: they hold what the other end sent."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How long a fetch may take, and how much it may bring."""

    connect_s: float
    total_s: float
    max_bytes: int


class JwksUrl:
    """A JWK set over HTTP (services.auth.jwt.ports.KeySource). A connection for each fetch: they are minutes apart.

    Args:
        authorities: who may vouch for the issuer's certificate; None for a URL of http.
        proxies: whether the environment says through which proxy.
    """

    def __init__(
        self, url: str, limits: FetchLimits, authorities: ssl.SSLContext | None, *, proxies: bool
    ) -> None:
        self._url = url
        self._limits = limits
        self._authorities = authorities
        self._proxies = proxies

    async def fetch(self) -> bytes:
        """The document now. Raises KeySourceError."""
        try:
            async with self._session() as session, session.get(self._url, allow_redirects=False) as answer:
                return await self._body(answer)
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            raise KeySourceError(_reason(error)) from error

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=True if self._authorities is None else self._authorities, force_close=True
            ),
            timeout=aiohttp.ClientTimeout(total=self._limits.total_s, connect=self._limits.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,
            trust_env=self._proxies,
        )

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        if answer.status != _OK:
            # A redirect too: it would lead to an address that nobody configured.
            raise KeySourceError(f"the answer's status is {answer.status}")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise KeySourceError("the answer is packed")
        body = bytearray()
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > self._limits.max_bytes:
                raise KeySourceError(f"the answer is longer than {self._limits.max_bytes} bytes")
        return bytes(body)


class JwksFile:
    """A JWK set in a file (services.auth.jwt.ports.KeySource); best replaced by renaming."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes

    async def fetch(self) -> bytes:
        """The file's content now. Raises KeySourceError."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        try:
            if not self._path.is_file():
                # Reading a pipe or a device might never end.
                raise KeySourceError("there is no such file")
            with self._path.open("rb") as file:
                document = file.read(self._max_bytes + 1)
        except OSError as error:
            raise KeySourceError(f"the file cannot be read: {error.strerror}") from error
        if len(document) > self._max_bytes:
            raise KeySourceError(f"the file is longer than {self._max_bytes} bytes")
        return document


def key_sources(issuers: Mapping[str, IssuerSettings], block: JwtBlock) -> dict[str, KeySource]:
    """By the issuer's name. Raises SettingsError if a file of authorities cannot be used."""
    return {name: _source(name, issuer, block) for name, issuer in issuers.items()}


def _source(name: str, issuer: IssuerSettings, block: JwtBlock) -> KeySource:
    if issuer.jwks_file is not None:
        return JwksFile(issuer.jwks_file, block.max_jwks_bytes)
    url = issuer.jwks_url or ""
    limits = FetchLimits(block.fetch_connect_s, block.fetch_total_s, block.max_jwks_bytes)
    return JwksUrl(url, limits, _authorities(name, issuer), proxies=issuer.proxy_from_environment)


def _authorities(name: str, issuer: IssuerSettings) -> ssl.SSLContext | None:
    if issuer.ca_file is None and (issuer.jwks_url or "").startswith("http:"):
        return None
    try:
        return ssl.create_default_context(cafile=issuer.ca_file)
    except OSError as error:
        raise SettingsError(
            f"auth.issuers.{name}.ca_file: cannot be used as certificate authorities"
        ) from error


def _reason(error: Exception) -> str:
    for kind, text in _FAILURES:
        if isinstance(error, kind):
            return text
    return "the connection broke"
