"""Certificates are renewed under running servers and clients, and nobody notices."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from gen.rpc import RpcContext
from gen.weir.auth.v1 import WatchKeysRequest, WatchKeysResponse
from gen.weir.auth.v1.service import AUTHENTICATE, WATCH_KEYS, AuthServicer
from meshkit.certificates import CertificateUnusable
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import UpstreamError
from meshkit.identity import Towards
from meshkit.renewing_channel import RenewingChannel
from meshkit.settings import MeshSettings
from tests.fakes import proving
from tests.fakes.proving import LIMIT, Everything, Noting, Served, call, certified, client, served
from weirctl import certificates

CALLERS_AT_ONCE = 16
PATIENCE_S = 20
DUE = timedelta(hours=17)
"""After so long a certificate of a day is renewed."""


class Serials(Noting):
    """Auth, which notes the certificate of every caller and lets watches run until told."""

    def __init__(self) -> None:
        super().__init__(AuthServicer.SERVICE, AuthServicer.METHODS)
        self.seen: Counter[int] = Counter()
        self.end = asyncio.Event()

    async def authenticate(self, request: Any, context: RpcContext) -> Any:
        """Answers at once."""
        self.seen[_serial(context)] += 1
        return AUTHENTICATE.response()

    async def watch_keys(self, request: Any, context: RpcContext) -> AsyncIterator[WatchKeysResponse]:
        """One event, and another when the test says so."""
        yield WatchKeysResponse()
        await self.end.wait()
        yield WatchKeysResponse()


def _serial(context: Any) -> int:
    """Of the certificate that the call's connection was made with."""
    (pem,) = context._context.auth_context()["x509_pem_cert"]
    return x509.load_pem_x509_certificate(pem).serial_number


def serial_of(settings: MeshSettings, service: str) -> int:
    """Of the certificate that lies there now."""
    pem = (settings.home / "tls" / service / "tls.crt").read_bytes()
    return x509.load_pem_x509_certificate(pem).serial_number


def shown_by(settings: MeshSettings, address: str) -> int:
    """The serial number of the certificate that the server shows in a handshake now."""
    files = settings.certificate_files("router")
    context = ssl.create_default_context(cafile=str(files.authorities))
    context.load_cert_chain(files.certificate, files.key)
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="auth.weir") as secure,
    ):
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


async def test_renewal_under_load(tmp_path: Path) -> None:
    """No call fails and no stream breaks; new connections, of both sides, are made with the new certificates."""
    begun = datetime.now(UTC)
    settings = certified(tmp_path / "home", begun - DUE)
    before = {service: serial_of(settings, service) for service in ("router", "auth")}
    servicer = Serials()
    security = proving.security_of(settings, "auth")
    async with (
        served(security, tmp_path, Everything([servicer])) as server,
        client(server.address, settings) as transport,
        asyncio.timeout(PATIENCE_S),
    ):
        watch = transport.unary_stream(WATCH_KEYS, WatchKeysRequest(), timeout=None, metadata=())
        await anext(watch)
        assert await asyncio.to_thread(shown_by, settings, server.address) == before["auth"]
        renewed = asyncio.Event()

        async def ask() -> None:
            # Long enough that the client looks at its files again.
            while not renewed.is_set() or serial_of(settings, "router") not in servicer.seen:
                await call(transport, AUTHENTICATE)

        async def renew() -> None:
            while servicer.seen[before["router"]] < CALLERS_AT_ONCE:
                await call(transport, AUTHENTICATE)
            assert await asyncio.to_thread(certificates.ensure, settings, begun)
            renewed.set()

        # Any error ends the test: it would end its task.
        await asyncio.gather(renew(), *(ask() for _ in range(CALLERS_AT_ONCE)))
        after = {service: serial_of(settings, service) for service in ("router", "auth")}
        assert not set(after.values()) & set(before.values())
        assert set(servicer.seen) == {before["router"], after["router"]}
        assert await asyncio.to_thread(shown_by, settings, server.address) == after["auth"]
        servicer.end.set()
        assert isinstance(await anext(watch), WatchKeysResponse)
        with pytest.raises(StopAsyncIteration):
            await anext(watch)
    assert _events(server).count("certificate renewed") == 1


async def test_the_line_before_closes_when_its_last_call_ends(tmp_path: Path) -> None:
    """Connections of the old certificate do not pile up."""
    begun = datetime.now(UTC)
    settings = certified(tmp_path / "home", begun - DUE)
    servicer = Serials()
    towards = Towards(settings.certificate_files("router"), "auth")
    security = proving.security_of(settings, "auth")
    async with (
        served(security, tmp_path, Everything([servicer])) as server,
        open_channel(server.address, towards) as channel,
        asyncio.timeout(PATIENCE_S),
    ):
        assert isinstance(channel, RenewingChannel)
        transport = ChannelTransport(channel, mesh_codec())
        watch = transport.unary_stream(WATCH_KEYS, WatchKeysRequest(), timeout=None, metadata=())
        await anext(watch)
        await asyncio.to_thread(certificates.ensure, settings, begun)
        while serial_of(settings, "router") not in servicer.seen:
            await call(transport, AUTHENTICATE)
        assert len(channel._retiring) == 1
        servicer.end.set()
        assert [event async for event in watch] == [WatchKeysResponse()]
        while channel._retiring:
            await asyncio.wait(channel._retiring)
        await call(transport, AUTHENTICATE)


async def test_files_that_cannot_be_used_change_nothing(tmp_path: Path) -> None:
    """The certificate before stays in use, the log says why, and the next good one is taken."""
    settings = certified(tmp_path / "home")
    before = serial_of(settings, "auth")
    async with served(proving.security_of(settings, "auth"), tmp_path) as server:
        key = settings.home / "tls" / "auth" / "tls.key"
        key.unlink()
        for _ in range(3):
            assert await asyncio.to_thread(shown_by, settings, server.address) == before
        assert certificates.ensure(settings, datetime.now(UTC)) == ["auth"]
        assert await asyncio.to_thread(shown_by, settings, server.address) == serial_of(settings, "auth")
    lines = [event for event in _events(server) if "certificate" in event]
    assert lines == [
        "certificate not renewed, the one before is used on",
        "certificate renewed",
    ]


async def test_an_expired_certificate_is_told_at_the_start(tmp_path: Path) -> None:
    """Of the server and of the client, with the file's name; neither begins to talk."""
    settings = certified(tmp_path / "home", datetime.now(UTC) - timedelta(days=2))
    with pytest.raises(CertificateUnusable, match=r"auth/tls\.crt: expired at"):
        async with served(proving.security_of(settings, "auth"), tmp_path):
            raise AssertionError("it started")
    with pytest.raises(CertificateUnusable, match=r"router/tls\.crt: expired at"):
        open_channel("127.0.0.1:1", Towards(settings.certificate_files("router"), "auth"))


async def test_a_server_that_is_away_is_away_over_tls_too(tmp_path: Path) -> None:
    """The same error as over any channel."""
    settings = certified(tmp_path / "home")
    async with client("127.0.0.1:1", settings) as transport:
        with pytest.raises(UpstreamError):
            await transport.unary_unary(AUTHENTICATE, AUTHENTICATE.request(), timeout=LIMIT, metadata=())


async def test_weir_up_renews(tmp_path: Path) -> None:
    """The task that `weir up` runs makes new certificates when two thirds of a life have passed, and says so."""
    settings = certified(tmp_path / "home", leaf_h=0.01)
    before = serial_of(settings, "ledger")
    # Half a minute's life: made so long ago that they are due.
    certificates._replace(settings.home / "tls" / "ledger", _aged(settings))
    told: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(certificates.keep_renewed(settings, told.put_nowait))
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert await told.get() == "certificates renewed: ledger"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert serial_of(settings, "ledger") != before


def _aged(settings: MeshSettings) -> dict[str, bytes]:
    ca = proving.ca_of(settings)
    made = datetime.now(UTC) - timedelta(seconds=30)
    chain, key = ca.issue("ledger", "weir.local", timedelta(seconds=36), made)
    return {"tls.crt": chain, "tls.key": key, "ca.crt": ca.certificate_pem}


def _events(server: Served) -> list[str]:
    return [json.loads(line)["event"] for line in server.log.read_text().splitlines() if line.startswith("{")]
