"""Every RPC and route of the gateway, and every credential that opens none of them."""

from __future__ import annotations

import hmac
import http.client
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf import json_format, message_factory
from google.rpc import error_details_pb2, status_pb2

from gen.weir.error.v1 import Reason
from meshkit.codec import mesh_codec
from meshkit.errors import TABLE
from meshkit.status import DETAILS_TRAILER
from meshkit.tokens import mint
from tests.fakes.oidc import part, private_key
from tests.harness.stronghold import MODEL, VECTORS, Stronghold

LIMIT_S = 30.0
_CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
_EMBED = {"model": VECTORS, "input": "hi"}


@dataclass(frozen=True)
class Refusal:
    """How a request ended: the HTTP status, or gRPC's code as the status that it maps to; and the error's code."""

    status: int
    code: str | None
    text: str


@dataclass(frozen=True)
class Http:
    """A route of HTTP/JSON."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None

    def ask(self, stronghold: Stronghold, authorization: str | None) -> Refusal:
        """Sends it with this Authorization header, or none."""
        headers = {} if authorization is None else {"authorization": authorization}
        data = None if self.body is None else json.dumps(self.body)
        connection = http.client.HTTPConnection(stronghold.weir.edge, timeout=LIMIT_S)
        try:
            connection.request(self.method, self.path, data, {**headers, "content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        return Refusal(answer.status, _code(text), text)


def _code(text: str) -> str | None:
    """Of OpenAI's error object; None where there is none."""
    document = json.loads(text) if text.startswith("{") else {}
    code: str | None = (document.get("error") or {}).get("code")
    return code


_STATUS = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
}


@dataclass(frozen=True)
class Rpc:
    """An RPC through the edge."""

    path: str
    request: Mapping[str, Any]
    streams: bool = False

    def ask(self, stronghold: Stronghold, authorization: str | None) -> Refusal:
        """Calls it with this metadata, or none."""
        metadata = () if authorization is None else (("authorization", authorization),)
        with grpc.insecure_channel(stronghold.weir.edge) as plain:
            channel: Any = plain  # its stubs want types of messages, and these are bytes
            try:
                if self.streams:
                    list(channel.unary_stream(self.path)(self._bytes(), timeout=LIMIT_S, metadata=metadata))
                else:
                    channel.unary_unary(self.path)(self._bytes(), timeout=LIMIT_S, metadata=metadata)
            except grpc.RpcError as error:
                reason = _reason(error)
                code = None if reason is None else TABLE[reason].openai_code
                return Refusal(_STATUS.get(error.code(), 500), code, str(error.details()))
        return Refusal(200, None, "")

    def _bytes(self) -> bytes:
        codec = mesh_codec()
        service, _, method = self.path.removeprefix("/").partition("/")
        kind = codec.pool.FindServiceByName(service).FindMethodByName(method).input_type
        return _wire(kind.full_name, self.request)


def _reason(error: Any) -> Reason | None:
    """The reason in google.rpc.ErrorInfo; None where a gRPC library speaks for itself."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_TRAILER:
            status, info = status_pb2.Status.FromString(value), error_details_pb2.ErrorInfo()
            return next((Reason[info.reason] for detail in status.details if detail.Unpack(info)), None)
    return None


def _wire(name: str, fields: Mapping[str, Any]) -> bytes:
    message = message_factory.GetMessageClass(mesh_codec().pool.FindMessageTypeByName(name))()
    json_format.ParseDict(dict(fields), message)
    data: bytes = message.SerializeToString()
    return data


CHAT_ROUTES: Mapping[str, Http | Rpc] = {
    "chat": Http("POST", "/v1/chat/completions", _CHAT),
    "stream": Http("POST", "/v1/chat/completions", {**_CHAT, "stream": True}),
    "completions": Http("POST", "/v1/completions", {"model": MODEL, "prompt": "hi"}),
    "responses": Http("POST", "/v1/responses", {"model": MODEL, "input": "hi"}),
    "Generate": Rpc(
        "/weir.router.v1.Router/Generate",
        {"model": MODEL, "messages": [{"role": "ROLE_USER", "content": "hi"}]},
        streams=True,
    ),
}
EMBED_ROUTES: Mapping[str, Http | Rpc] = {
    "embeddings": Http("POST", "/v1/embeddings", _EMBED),
    "Embed": Rpc("/weir.router.v1.Router/Embed", {"model": VECTORS, "inputs": ["hi"]}),
}
OTHER_ROUTES: Mapping[str, Http | Rpc] = {
    "models": Http("GET", "/v1/models"),
    "model": Http("GET", f"/v1/models/{MODEL}"),
    "ListModels": Rpc("/weir.router.v1.Router/ListModels", {}),
}
ROUTES: Mapping[str, Http | Rpc] = {**CHAT_ROUTES, **EMBED_ROUTES, **OTHER_ROUTES}

Credential = Callable[[Stronghold], str | None]


def _public_pem() -> bytes:
    key = private_key("RS256").public_key()
    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def _signed_with_public_key(stronghold: Stronghold) -> str:
    """The classic: HS256, with the issuer's public key as the secret."""
    claims = stronghold.issuer.claims(now_s=int(time.time()))
    message = f"{part({'alg': 'HS256', 'kid': 'rs256', 'typ': 'JWT'})}.{part(claims)}"
    return f"{message}.{part(hmac.digest(_public_pem(), message.encode(), 'sha256'))}"


def _bearer(token: str) -> str:
    return f"Bearer {token}"


def _typed_wrongly(stronghold: Stronghold) -> str:
    key = stronghold.weir.key
    return key[:-1] + ("a" if key[-1] != "a" else "b")


def _stolen_id(stronghold: Stronghold) -> str:
    """Another secret under a known id, checksum and all."""
    value = 0
    for letter in stronghold.weir.key.split("_")[1]:
        value = value * 32 + "abcdefghijklmnopqrstuvwxyz234567".index(letter)
    return mint(lambda count: value.to_bytes(count, "big") if count == 8 else os.urandom(count)).text


BAD: Mapping[str, Credential] = {
    "nothing": lambda _: None,
    "empty": lambda _: "",
    "scheme alone": lambda _: "Bearer",
    "another scheme": lambda s: f"Basic {s.weir.key}",
    "no scheme": lambda s: s.weir.key,
    "rubbish": lambda _: "Bearer weir_x_y",
    "somebody's key": lambda _: "Bearer sk-proj-1234567890",
    "two keys": lambda s: f"Bearer {s.weir.key} {s.weir.key}",
    "upper case": lambda s: f"Bearer {s.weir.key.upper()}",
    "typo": lambda s: _bearer(_typed_wrongly(s)),
    "wrong secret": lambda s: _bearer(_stolen_id(s)),
    "very long": lambda s: f"Bearer {s.weir.key}{'A' * 20_000}",
    "jwt alg none": lambda s: _bearer(s.unsigned()),
    "jwt HS256 with the public key": lambda s: _bearer(_signed_with_public_key(s)),
    "jwt wrong audience": lambda s: _bearer(s.jwt(aud="somebody-else")),
    "jwt wrong issuer": lambda s: _bearer(s.jwt(iss="https://evil.example")),
    "jwt expired": lambda s: _bearer(
        s.jwt(iat=time.time() - 400, nbf=time.time() - 400, exp=time.time() - 60)
    ),
    "jwt not yet": lambda s: _bearer(s.jwt(nbf=time.time() + 120)),
    "jwt unknown kid": lambda s: _bearer(s.jwt(header={"kid": "nobody"})),
    "jwt another's key": lambda s: _bearer(s.issuer.token("ES256", number=7, exp=time.time() + 300)),
    "jwt without end": lambda s: _bearer(s.jwt(exp=None)),
}
"""Each is KEY_MISSING or KEY_INVALID or KEY_EXPIRED: 401 and `invalid_api_key`."""
