"""Who may call whom, proven against running servers: by certificate, by sidecar, inside a process, by file system."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gen.rpc import Method
from gen.weir.auth.v1.service import AUTHENTICATE, WATCH_KEYS
from gen.weir.cloud.v1.service import CloudAdapterServicer
from gen.weir.ledger.v1.service import RECORD
from meshkit.callers import CALLERS, REFLECTION
from meshkit.channel import open_channel
from meshkit.errors import Forbidden, UpstreamError
from meshkit.identity import FORWARDED, SERVICES, Peers, Security, Towards
from meshkit.inprocess import InProcessTransport
from meshkit.server import AddressTakenError
from meshkit.settings import MeshSettings
from meshkit.telemetry import Logger
from tests.fakes import proving
from tests.fakes.proving import METHODS, Served, ca_of, call, certified, client, raw_client, served
from weirctl import authority

GUARDED = (*CloudAdapterServicer.METHODS, RECORD)
"""What the router alone may call."""
HOUR = timedelta(hours=1)
NOBODY = 65_534


def by_path(method: Method) -> str:
    """The name of a test's case."""
    return method.path.rpartition(".")[2]


@pytest.fixture
def settings(tmp_path: Path) -> MeshSettings:
    """Certificates of a mesh."""
    return certified(tmp_path / "home")


@pytest.fixture
async def server(settings: MeshSettings, tmp_path: Path) -> AsyncIterator[Served]:
    """Serves every RPC over TLS as Auth."""
    async with served(proving.security_of(settings, "auth"), tmp_path) as running:
        yield running


@pytest.mark.parametrize("caller", SERVICES)
async def test_every_rpc_by_every_service(server: Served, settings: MeshSettings, caller: Peers) -> None:
    """Who is in the table reaches the servicer, which knows its name; everybody else is refused before it."""
    async with client(server.address, settings, caller) as transport:
        for method in METHODS:
            if caller in CALLERS[method.path]:
                await call(transport, method)
            else:
                with pytest.raises(Forbidden, match=f"{caller} may not call {method.path}"):
                    await call(transport, method)
                assert server.refused(method.path) == 1
    assert server.service.reached == [
        (method.path, caller) for method in METHODS if caller in CALLERS[method.path]
    ]


@pytest.mark.parametrize("caller", [service for service in SERVICES if service != "router"])
@pytest.mark.parametrize("method", GUARDED, ids=by_path)
async def test_the_router_alone_spends(
    server: Served, settings: MeshSettings, method: Method, caller: Peers
) -> None:
    """Nobody else reaches CloudAdapter or the ledger's Record; it is counted, and logged with who tried."""
    async with client(server.address, settings, caller) as transport:
        with pytest.raises(Forbidden, match=f"{caller} may not call {method.path}"):
            await call(transport, method)
    assert server.service.reached == []
    assert server.refused(method.path) == 1
    (line,) = [json.loads(line) for line in server.log.read_text().splitlines() if "caller refused" in line]
    assert (line["level"], line["caller"], line["method"]) == ("warning", caller, method.path)
    async with client(server.address, settings, "router") as transport:
        await call(transport, method)
    assert server.service.reached == [(method.path, "router")]


@pytest.mark.parametrize(
    ("kind", "refusal"),
    [
        ("none", UpstreamError),
        ("foreign CA", UpstreamError),
        ("expired", UpstreamError),
        ("not yet", UpstreamError),
        ("trust domain", Forbidden),
        ("no service", Forbidden),
    ],
)
async def test_strangers(server: Served, settings: MeshSettings, kind: str, refusal: type[Exception]) -> None:
    """What no CA of ours vouches for makes no connection; what names no service of ours may call nothing."""
    ca, now = ca_of(settings), datetime.now(UTC)
    own = {
        "none": None,
        "foreign CA": authority.found(now).issue("router", "weir.local", HOUR, now),
        "expired": ca.issue("router", "weir.local", HOUR, now - 2 * HOUR),
        "not yet": ca.issue("router", "weir.local", HOUR, now + HOUR),
        "trust domain": ca.issue("router", "elsewhere.local", HOUR, now),
        "no service": ca.issue("janitor", "weir.local", HOUR, now),
    }[kind]
    async with raw_client(server.address, ca.certificate_pem, own) as transport:
        for method in (*GUARDED, AUTHENTICATE, WATCH_KEYS):
            with pytest.raises(refusal):
                await call(transport, method)
    assert server.service.reached == []


async def test_plain_text(server: Served) -> None:
    """It gets no answer at all from a port that wants TLS."""
    async with client(server.address, None) as transport:
        for method in GUARDED:
            with pytest.raises(UpstreamError):
                await call(transport, method)
    assert server.service.reached == []


@pytest.mark.parametrize("kind", ["another service", "a client's certificate", "foreign CA"])
async def test_a_client_knows_its_server(settings: MeshSettings, tmp_path: Path, kind: str) -> None:
    """A server with another service's certificate, or one that is none of a server, or another CA's, gets no call."""
    security = proving.security_of(settings, "edge" if kind == "a client's certificate" else "ledger")
    if kind == "foreign CA":
        security = proving.security_of(certified(tmp_path / "other"), "auth")
    async with served(security, tmp_path) as other:
        expected = "edge" if kind == "a client's certificate" else "auth"
        async with client(other.address, settings, "router", expected) as transport:
            with pytest.raises(UpstreamError):
                await call(transport, AUTHENTICATE)
        assert other.service.reached == []


async def _health(channel: grpc.aio.Channel) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    assert (await watch.read()).status == answer.status
    watch.cancel()
    return int(answer.status)


async def _services(channel: grpc.aio.Channel) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call_ = stub.ServerReflectionInfo(timeout=10)
    await call_.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call_.read()
    await call_.done_writing()
    if answer is grpc.aio.EOF:
        raise AssertionError(await call_.code())
    return {service.name for service in answer.list_services_response.service}


@pytest.mark.parametrize("caller", SERVICES)
async def test_health_and_reflection(server: Served, settings: MeshSettings, caller: Peers) -> None:
    """Every service may ask for health; what is served here is told those in the table."""
    towards = Towards(settings.certificate_files(caller), "auth")
    async with open_channel(server.address, towards) as channel:
        assert await _health(channel) == health_pb2.HealthCheckResponse.SERVING
        if caller in CALLERS[REFLECTION]:
            assert "weir.auth.v1.Auth" in await _services(channel)
        else:
            with pytest.raises((grpc.aio.AioRpcError, AssertionError), match="PERMISSION_DENIED"):
                await _services(channel)
            assert server.refused(REFLECTION) == 1


MESH = Security("mesh", None, "cluster.local", "weir")


def forwarded(account: str, namespace: str = "weir") -> tuple[str, str]:
    """What a sidecar says of its caller."""
    return FORWARDED, f'By=x;Hash=y;Subject="";URI=spiffe://cluster.local/ns/{namespace}/sa/{account}'


async def test_sidecars_name_the_caller(tmp_path: Path) -> None:
    """Over transport mesh the nearest sidecar's word decides, for every RPC; without it nobody may call."""
    async with served(MESH, tmp_path) as running, client(running.address, None) as transport:
        for method in METHODS:
            for service in SERVICES:
                metadata = [forwarded(service.replace("_", "-"))]
                if service in CALLERS[method.path]:
                    await call(transport, method, metadata)
                    assert running.service.reached.pop() == (method.path, service)
                else:
                    with pytest.raises(Forbidden, match=f"{service} may not call"):
                        await call(transport, method, metadata)
            with pytest.raises(Forbidden, match="proves no service"):
                await call(transport, method)
        assert running.service.reached == []


@pytest.mark.parametrize(
    "metadata",
    [
        [forwarded("router"), forwarded("edge")],
        [(FORWARDED, f"{forwarded('router')[1]},{forwarded('edge')[1]}")],
        [(FORWARDED, f'{forwarded("router")[1]};Subject=",{forwarded("edge")[1]}')],
        [forwarded("router", "default")],
        [forwarded("router/../router")],
        [(FORWARDED, "URI=spiffe://weir.local/router")],
        [("x-forwarded-client-cert-2", forwarded("router")[1])],
        [("x_forwarded_client_cert", forwarded("router")[1])],
    ],
)
async def test_what_a_caller_says_of_itself_counts_for_nothing(
    tmp_path: Path, metadata: list[tuple[str, str]]
) -> None:
    """Only what the sidecar appended last does."""
    async with served(MESH, tmp_path) as running, client(running.address, None) as transport:
        for method in GUARDED:
            with pytest.raises(Forbidden):
                await call(transport, method, metadata)
        assert running.service.reached == []


async def test_kubernetes_probes_come_without_a_sidecar(tmp_path: Path) -> None:
    """Health is told to everybody over transport mesh, and nothing else."""
    async with served(MESH, tmp_path) as running, open_channel(running.address) as channel:
        assert await _health(channel) == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises((grpc.aio.AioRpcError, AssertionError), match="PERMISSION_DENIED"):
            await _services(channel)


async def test_a_certificate_counts_more_than_a_header(server: Served, settings: MeshSettings) -> None:
    """Over mtls the header of sidecars is a header like any other."""
    async with client(server.address, settings, "edge") as transport:
        with pytest.raises(Forbidden, match="edge may not call"):
            await call(
                transport, RECORD, [forwarded("router"), (FORWARDED, "URI=spiffe://weir.local/router")]
            )
    assert server.service.reached == []


@pytest.mark.parametrize("caller", SERVICES)
async def test_the_table_holds_inside_a_process(caller: Peers, tmp_path: Path) -> None:
    """A call that crosses no socket carries its caller's name, and is refused as over one."""
    with (tmp_path / "log").open("wb") as file:
        for method in METHODS:
            reached: list[tuple[str, str]] = []
            servicer = proving.Noting("x", METHODS, reached)
            transport = InProcessTransport(
                _one_of(servicer, method), Logger("x", file.fileno()), caller=caller
            )
            if caller in CALLERS[method.path]:
                await call(transport, method)
                assert reached == [(method.path, caller)]
            else:
                with pytest.raises(Forbidden, match=f"{caller} may not call {method.path}"):
                    await call(transport, method)
                assert reached == []


def _one_of(servicer: proving.Noting, method: Method) -> proving.Noting:
    """Of the methods of that name, the one that is meant."""
    return proving.Noting("x", (method,), servicer.reached)


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A home as `weir up` makes it: others may pass through it, and not into the folder of the sockets."""
    home = Path(tempfile.mkdtemp(prefix="weir-uds-"))
    home.chmod(0o711)
    yield home / "mesh"
    shutil.rmtree(home)


def _make_open(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_cannot_open_a_socket(sockets: Path, tmp_path: Path) -> None:
    """Over Unix sockets it is the file system that refuses; this user's own processes reach everything."""
    path = sockets / "auth-0.sock"
    async with served(Security("uds"), tmp_path, address=f"unix:{path}") as running:
        with socket.socket(socket.AF_UNIX) as plug:
            os.seteuid(NOBODY)
            try:
                with pytest.raises(PermissionError):
                    plug.connect(str(path))
            finally:
                os.seteuid(0)
        async with client(f"unix:{path}", None) as transport:
            for method in METHODS:
                await call(transport, method)
        assert running.service.reached == [(method.path, "") for method in METHODS]


async def test_no_socket_where_others_may_enter(sockets: Path, tmp_path: Path) -> None:
    """The start fails and says what to do."""
    _make_open(sockets)
    with pytest.raises(
        AddressTakenError, match=r"mesh is open to other users: make it yours, with mode 0700"
    ):
        async with served(Security("uds"), tmp_path, address=f"unix:{sockets}/auth-0.sock"):
            raise AssertionError("it started")


async def test_loopback_proves_nothing_and_says_so(tmp_path: Path) -> None:
    """Whoever reaches the port may call; the log warns at the start."""
    async with served(Security("loopback"), tmp_path) as running, client(running.address, None) as transport:
        for method in METHODS:
            await call(transport, method)
        assert running.service.reached == [(method.path, "") for method in METHODS]
        first = json.loads(running.log.read_text().splitlines()[0])
        assert (first["level"], "proves nothing" in first["event"]) == ("warning", True)
