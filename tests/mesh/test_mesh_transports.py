"""Who may call whom in a running Weir: over TLS in both topologies, under renewal, and over sockets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from gen.rpc import Method
from gen.weir.auth.v1.service import LIST_KEYS, WATCH_KEYS
from gen.weir.cloud.v1.service import LIST_PROVIDERS, CloudAdapterServicer
from gen.weir.ledger.v1.service import RECORD, USAGE
from gen.weir.router.v1.service import LIST_MODELS
from meshkit.channel import CHANNEL_OPTIONS, ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import Forbidden, UpstreamError
from meshkit.identity import SERVICES
from meshkit.settings import ServiceName
from tests.fakes.proving import ca_of, call
from tests.harness.cloud_weir import ask, ended, started
from tests.harness.running_weir import (
    Provider,
    RunningWeir,
    free_configuration,
    running_provider,
    weir_command,
)
from weirctl import authority
from weirctl.config import running

GUARDED: tuple[tuple[ServiceName, Method], ...] = (
    *(("cloud_adapter", method) for method in CloudAdapterServicer.METHODS),
    ("ledger", RECORD),
)


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """The cloud."""
    with running_provider() as running_one:
        yield running_one


@pytest.fixture(scope="module", params=["separate", "compact"])
def weir(request: pytest.FixtureRequest, provider: Provider) -> Iterator[RunningWeir]:
    """With transport mtls, which is the default, in both topologies."""
    one = started(provider, topology=request.param)
    yield one
    ended(one)


def test_it_answers_and_accounts(weir: RunningWeir) -> None:
    """Edge, router, adapter, ledger and the command all prove themselves to each other."""
    ask(weir, "mtls-1")
    assert weir.entry("mtls-1")["outcome"] == "ok"
    created = weir.run("keys", "create", "--org", "tests", "--team", "mtls")
    assert created.returncode == 0, created.stderr
    assert "warning" not in weir.output


@pytest.mark.parametrize("caller", [service for service in SERVICES if service != "router"])
async def test_the_router_alone_spends(weir: RunningWeir, caller: Any) -> None:
    """At the services' own ports; in the compact topology at worker 0's, which serves for all."""
    for service, method in GUARDED:
        async with weir.channel(service, caller=caller) as channel:
            with pytest.raises(Forbidden, match=f"{caller} may not call {method.path}"):
                await call(ChannelTransport(channel, mesh_codec()), method)


async def test_the_router_may(weir: RunningWeir) -> None:
    """The same calls with the router's certificate reach the servicers."""
    async with weir.channel("cloud_adapter", caller="router") as channel:
        await call(ChannelTransport(channel, mesh_codec()), LIST_PROVIDERS)
    async with weir.channel("ledger", caller="router") as channel:
        await call(ChannelTransport(channel, mesh_codec()), RECORD, ends=True)


@pytest.mark.parametrize(
    ("service", "method", "caller"),
    [
        ("auth", WATCH_KEYS, "edge"),
        ("auth", LIST_KEYS, "router"),
        ("auth", LIST_KEYS, "edge"),
        ("ledger", USAGE, "router"),
        ("router", LIST_MODELS, "cloud_adapter"),
        ("router", LIST_MODELS, "ledger"),
    ],
)
async def test_others_keep_to_their_own(
    weir: RunningWeir, service: ServiceName, method: Method, caller: Any
) -> None:
    """A broken-into service cannot read the keys, nor ask models behind the edge's back."""
    async with weir.channel(service, caller=caller) as channel:
        with pytest.raises(Forbidden, match=f"{caller} may not call {method.path}"):
            await call(ChannelTransport(channel, mesh_codec()), method)


@pytest.mark.parametrize("kind", ["plain text", "no certificate", "foreign CA", "expired", "trust domain"])
async def test_strangers(weir: RunningWeir, kind: str) -> None:
    """Nobody without a certificate of this Weir's own CA and trust domain calls anything, health included."""
    settings, now, hour = running(weir.home), datetime.now(UTC), timedelta(hours=1)
    ca = ca_of(settings)
    own = {
        "foreign CA": authority.found(now).issue("router", "weir.local", hour, now),
        "expired": ca.issue("router", "weir.local", hour, now - 2 * hour),
        "trust domain": ca.issue("router", "elsewhere.local", hour, now),
    }.get(kind, (None, None))
    for service, method in GUARDED:
        towards = settings.towards(service, "router")
        assert towards is not None
        options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", f"{towards.server}.weir"))
        credentials = grpc.ssl_channel_credentials(ca.certificate_pem, own[1], own[0])
        address = settings.address(service)
        channel = (
            open_channel(address)
            if kind == "plain text"
            else grpc.aio.secure_channel(address, credentials, options=options)
        )
        async with channel:
            with pytest.raises(Forbidden if kind == "trust domain" else UpstreamError):
                await call(ChannelTransport(channel, mesh_codec()), method)


def test_a_service_without_its_certificate_does_not_start(weir: RunningWeir, tmp_path: Path) -> None:
    """It says which file it misses."""
    config = tmp_path / "weir.yaml"
    config.write_text(yaml.safe_dump(free_configuration(mtls={"made_by": "others"})))
    up = weir_command(tmp_path / "home", "up", "--config", str(config))
    assert up.returncode == 1
    assert "the services' certificates cannot be used" in up.stdout + up.stderr
    assert "home/tls/router/tls.crt: No such file or directory" in up.stdout + up.stderr
