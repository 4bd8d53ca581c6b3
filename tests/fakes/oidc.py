"""An OIDC issuer of the tests' own: keys made when they are first needed, tokens of any shape, and its JWK set."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any, Literal

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurve
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms
from jwt.utils import base64url_encode
from prometheus_client import CollectorRegistry

from gen.weir.auth.v1 import Key
from meshkit.telemetry import Logger
from services.auth.jwt.build import build_tokens
from services.auth.jwt.ports import KeySourceError
from services.auth.jwt.settings import IssuerSettings, JwtBlock

NOW = datetime(2031, 4, 5, 6, 7, 8, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
ISSUER = "https://login.example/realms/weir"
AUDIENCE = "weir-gateway"
ALGORITHMS = ("RS256", "ES256", "EdDSA")

TLS = Path(__file__).resolve().parent / "provider_tls"

Json = dict[str, Any]


def private_key(alg: str, number: int = 0, rsa_bits: int = 2048) -> Any:
    """A key for an algorithm, always the same for the same arguments within a process."""
    return _made(alg, number, rsa_bits)


@cache
def _made(alg: str, number: int, rsa_bits: int) -> Any:
    if alg == "RS256":
        return generate_rsa_key(65_537, rsa_bits)
    return generate_ec_key(SECP256R1()) if alg == "ES256" else Ed25519PrivateKey.generate()


def ec_key(curve: EllipticCurve) -> Any:
    """A new key on any curve."""
    return generate_ec_key(curve)


def jwk(key: Any, kid: str, **members: Any) -> Json:
    """A key as a JWK: its public half where `key` is public, else all of it."""
    kinds: tuple[Any, ...] = (RSAAlgorithm, ECAlgorithm, OKPAlgorithm)
    for kind in kinds:
        try:
            return {**kind.to_jwk(key, as_dict=True), "kid": kid, **members}
        except Exception:  # noqa: BLE001, S112 - each raises another error for a key of another kind
            continue
    raise TypeError("no key of a known kind")


def part(value: Json | bytes) -> str:
    """One part of a token: base64url of the bytes, or of the JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64url_encode(data).decode()


def signature(alg: str, key: Any, message: str) -> str:
    """The third part, by any algorithm of the library; for HS256 the key is the secret's bytes."""
    return part(get_default_algorithms()[alg].sign(message.encode(), key))


def assembled(header: Json | bytes, payload: Json | bytes, alg: str, key: Any) -> str:
    """A token of any header and payload, truly signed by `alg`."""
    message = f"{part(header)}.{part(payload)}"
    return f"{message}.{signature(alg, key, message)}"


@dataclass
class FakeIssuer:
    """An issuer with one key for each algorithm; the kid is the algorithm in lower case.

    It is a KeySource too, and counts how often it was asked.
    """

    published: list[Json] = field(
        default_factory=lambda: [jwk(private_key(alg).public_key(), alg.lower()) for alg in ALGORITHMS]
    )
    document: bytes | None = None
    """What is published in place of `published`, if anything."""
    failure: Exception | None = None
    """What a fetch raises, if anything."""
    fetches: int = 0
    held: asyncio.Event | None = None
    """While it is not set, fetches wait for it."""

    async def fetch(self) -> bytes:
        """The JWK set."""
        self.fetches += 1
        if self.held is not None:
            await self.held.wait()
        if self.failure is not None:
            raise self.failure
        return self.text()

    def text(self) -> bytes:
        """What is published now."""
        return self.document if self.document is not None else json.dumps({"keys": self.published}).encode()

    def away(self) -> None:
        """From now on fetches fail."""
        self.failure = KeySourceError("no connection within the limit")

    def back(self) -> None:
        """They succeed again."""
        self.failure = None

    @staticmethod
    def claims(now_s: float = NOW_S, **changes: Any) -> Json:
        """Good claims; a change to None takes one out."""
        good = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now_s, "nbf": now_s, "exp": now_s + 300,
            "org": "acme", "realm_access": {"roles": ["weir-users"]},
        } | changes  # fmt: skip
        return {name: value for name, value in good.items() if value is not None}

    def token(
        self, alg: str = "ES256", *, header: Mapping[str, Any] | None = None, number: int = 0, **claims: Any
    ) -> str:
        """A token that is good but for what is asked; in `header` None takes a field out."""
        fields = {"alg": alg, "kid": alg.lower(), "typ": "JWT", **(header or {})}
        kept = {name: value for name, value in fields.items() if value is not None}
        return assembled(kept, self.claims(**claims), alg, private_key(alg, number))


Fault = Literal["none", "status", "slow", "huge", "html", "redirect", "packed", "cut", "endless"]
_HUGE = 600 * 1024


@dataclass
class JwksServer:
    """Publishes an issuer's keys over HTTP, and misbehaves as it is told."""

    issuer: FakeIssuer
    url: str = ""
    fault: Fault = "none"
    paths: list[str] = field(default_factory=list)
    """Of every request."""
    headers: list[Mapping[str, str]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the end, so that slow answers end too."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        self.paths.append(request.path)
        self.headers.append(dict(request.headers))
        text = self.issuer.text()
        if self.fault == "slow":
            await self.ended.wait()
        if self.fault in {"cut", "endless"}:
            return await self._streamed(request)
        whole = {
            "status": web.Response(status=500, body=text),
            "huge": web.Response(body=b" " * _HUGE + text),
            "html": web.Response(text="<html>please log in</html>", content_type="text/html"),
            "redirect": web.Response(status=302, headers={"location": "/latest/meta-data"}, body=text),
            "packed": web.Response(headers={"content-encoding": "gzip"}, body=text),
        }
        return whole.get(self.fault, web.Response(body=text, content_type="application/jwk-set+json"))

    async def _streamed(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"keys": [')
        if self.fault == "cut" and request.transport is not None:
            request.transport.abort()
        await self.ended.wait()
        return response


@asynccontextmanager
async def serving(issuer: FakeIssuer, *, tls: bool = False) -> AsyncIterator[JwksServer]:
    """The issuer's keys over HTTP on a free port, or over TLS with a certificate that only the tests trust."""
    server = JwksServer(issuer)
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    context = SSLContext(PROTOCOL_TLS_SERVER) if tls else None
    if context is not None:
        context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/jwks"
    try:
        yield server
    finally:
        server.ended.set()
        await runner.cleanup()


def settings_of(**changes: Any) -> IssuerSettings:
    """One issuer as weir.yaml may say it."""
    block: Json = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE, "second-audience"],
        "jwks_file": "/nowhere/jwks.json",
        "org": {"claim": "org"},
        "team": "search",
        "scopes": {
            "claim": "realm_access.roles",
            "map": {"weir-users": ["chat", "embed"], "weir-admins": ["admin", "chat"]},
        },
    }
    return IssuerSettings.model_validate(
        {name: value for name, value in (block | changes).items() if value is not None}
    )


@cache
def _silent() -> Logger:
    return Logger("auth", os.open(os.devnull, os.O_WRONLY))


class Tokens:
    """The verifier over one fake issuer named `work`, on clocks that a test moves."""

    def __init__(self, issuer: FakeIssuer, settings: IssuerSettings | None = None, **block: float) -> None:
        self.now = NOW
        self.registry = CollectorRegistry()
        self.verify = build_tokens(
            {"work": settings or settings_of()},
            JwtBlock.model_validate(block),
            {"work": issuer},
            lambda: self.now,
            self.monotonic,
            self.registry,
            _silent(),
        )

    async def __call__(self, text: str) -> Key:
        """The token's key."""
        return await self.verify(text)

    def monotonic(self) -> float:
        """Seconds that pass as `now` does."""
        return self.now.timestamp()

    def sample(self, name: str, **labels: str) -> float | None:
        """A metric's value."""
        return self.registry.get_sample_value(name, labels)
