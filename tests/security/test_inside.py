"""The services behind the gateway: not reached through the edge, and nobody's at their own ports, whatever the key."""

from __future__ import annotations

import http.client
from typing import Any

import grpc
import pytest

from gen.rpc import Method
from gen.weir.auth.v1.service import LIST_KEYS, AuthServicer
from gen.weir.cloud.v1.service import LIST_PROVIDERS, CloudAdapterServicer
from gen.weir.ledger.v1.service import USAGE, LedgerServicer
from gen.weir.router.v1.service import LIST_MODELS
from meshkit.identity import dns_name
from meshkit.settings import ServiceName
from tests.fakes.proving import ca_of
from tests.harness.stronghold import Stronghold
from tests.security.administration import Desk, bearer
from weirctl.config import running

pytestmark = pytest.mark.xdist_group("security")
LIMIT_S = 20.0
PATHS = (
    *(method.path for servicer in (AuthServicer, CloudAdapterServicer, LedgerServicer) for method in servicer.METHODS),
    "/envoy.service.auth.v3.Authorization/Check",
)  # fmt: skip
PORTS: tuple[tuple[ServiceName, Method], ...] = (
    ("auth", LIST_KEYS),
    ("ledger", USAGE),
    ("cloud_adapter", LIST_PROVIDERS),
    ("router", LIST_MODELS),
)


def call(channel: Any, path: str, token: str) -> grpc.RpcError:
    """The error that an RPC ends with. Fails where it ends with none."""
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(path)(b"", timeout=LIMIT_S, metadata=(("authorization", bearer(token)),))
    return caught.value


@pytest.mark.parametrize("path", PATHS)
def test_no_way_through_the_edge(stronghold: Stronghold, path: str) -> None:
    """By gRPC, gRPC-Web and JSON, with the admin key: as if it were not there."""
    admin = Desk(stronghold).admin
    with grpc.insecure_channel(stronghold.weir.edge) as channel:
        error: Any = call(channel, path, admin)
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    for content in ("application/grpc-web+proto", "application/grpc-web-text", "application/json", ""):
        connection = http.client.HTTPConnection(stronghold.weir.edge, timeout=LIMIT_S)
        headers = {"authorization": bearer(admin), **({"content-type": content} if content else {})}
        connection.request("POST", path, b"\0\0\0\0\0", headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        assert (answer.status, answer.getheader("grpc-status") or "12") == (404, "12"), content


@pytest.mark.parametrize("kind", ["plain text", "no certificate"])
@pytest.mark.parametrize(("service", "method"), PORTS, ids=lambda value: getattr(value, "name", value))
def test_no_way_without_a_certificate(
    stronghold: Stronghold, service: ServiceName, method: Method, kind: str
) -> None:
    """At the service's own port, with the admin key: the connection ends before anybody reads it."""
    settings = running(stronghold.weir.home)
    credentials = grpc.ssl_channel_credentials(ca_of(settings).certificate_pem)
    named = (("grpc.ssl_target_name_override", dns_name(service)),)
    address = settings.address(service)
    with (
        grpc.insecure_channel(address)
        if kind == "plain text"
        else grpc.secure_channel(address, credentials, options=named)
    ) as channel:
        error: Any = call(channel, method.path, Desk(stronghold).admin)
    assert error.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(("service", "method"), PORTS, ids=lambda value: getattr(value, "name", value))
async def test_a_certificate_alone_is_not_enough(
    stronghold: Stronghold, service: ServiceName, method: Method
) -> None:
    """The operator's certificate without a key opens neither keys nor accounts nor models."""
    async with stronghold.weir.channel(service) as channel:
        ask: Any = channel.unary_unary(method.path)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(b"", timeout=LIMIT_S)
    assert caught.value.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
