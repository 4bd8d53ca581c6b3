"""One server process as others see it: health, reflection, metrics, addresses, signals."""

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from gen.weir.router.v1 import GenerateRequest, ListModelsRequest
from gen.weir.router.v1.service import RouterClient
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import UpstreamError, WeirError
from meshkit.server import AddressTakenError, MeshServer
from meshkit.serving import Servicer
from meshkit.settings import Listen
from meshkit.telemetry import Logger
from tests.fakes.mesh import ScriptedRouter

_PATIENCE_S = 10.0


@dataclass
class NotedService:
    """A service that notes what was done to it."""

    servicers: Sequence[Servicer] = field(default_factory=lambda: (ScriptedRouter(),))
    done: list[str] = field(default_factory=list)
    fails: bool = False

    async def start(self) -> None:
        self.done.append("start")
        if self.fails:
            raise OSError("no database")

    async def stop(self) -> None:
        self.done.append("stop")


class WatchedService(NotedService):
    """A service with endless calls."""

    async def drain(self) -> None:
        self.done.append("drain")


def free_port() -> int:
    """A TCP port that nothing listens on at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listen_at(address: str, *, metrics_port: int = 0, drain_s: float = 5.0) -> Listen:
    """Where to listen, on loopback."""
    return Listen(
        address=address,
        metrics_host="127.0.0.1",
        metrics_port=metrics_port,
        drain=timedelta(seconds=drain_s),
    )


@asynccontextmanager
async def served(
    listen: Listen, log: Path, service: NotedService | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A running server and a channel to it."""
    with log.open("ab") as file:
        server = MeshServer(
            "router", service or NotedService(), listen, CollectorRegistry(), Logger("router", file.fileno())
        )
        await server.start()
        try:
            async with open_channel(listen.address) as channel:
                yield channel
        finally:
            await server.stop()


async def _health(channel: grpc.aio.Channel, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    status: int = answer.status
    return status


async def _reflect(channel: grpc.aio.Channel, *requests: reflection_pb2.ServerReflectionRequest) -> list[Any]:
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(requests))
    return [answer async for answer in call]


async def test_health(tmp_path: Path) -> None:
    """The whole and each service report SERVING; an unknown service is NOT_FOUND."""
    async with served(listen_at(f"127.0.0.1:{free_port()}"), tmp_path / "log") as channel:
        for name in ("", "weir.router.v1.Router", "grpc.health.v1.Health"):
            assert await _health(channel, name) == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _health(channel, "weir.router.v1.Rooter")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watcher_sees_the_drain(tmp_path: Path) -> None:
    """A health watch turns to NOT_SERVING when the drain begins, and does not hold the drain up."""
    listen = listen_at(f"127.0.0.1:{free_port()}", drain_s=60.0)
    with (tmp_path / "log").open("wb") as file:
        server = MeshServer(
            "router", NotedService(), listen, CollectorRegistry(), Logger("router", file.fileno())
        )
        await server.start()
        async with asyncio.timeout(_PATIENCE_S), open_channel(listen.address) as channel:
            call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
            watch = aiter(call)
            seen = [(await anext(watch)).status]
            await server.stop()
            seen += [answer.status async for answer in watch]
    assert seen == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]


async def test_reflection(tmp_path: Path) -> None:
    """Reflection lists the services, and resolves every file of Weir's contracts and of health."""
    request = reflection_pb2.ServerReflectionRequest
    async with served(listen_at(f"127.0.0.1:{free_port()}"), tmp_path / "log") as channel:
        (listing,) = await _reflect(channel, request(list_services=""))
        services = {service.name for service in listing.list_services_response.service}
        assert services == {
            "weir.router.v1.Router",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        # All our contracts, also those of other services: one image, the same for every process.
        symbols = ["weir.ledger.v1.Ledger", "weir.error.v1.Reason", *services]
        answers = await _reflect(channel, *(request(file_containing_symbol=symbol) for symbol in symbols))
        for symbol, answer in zip(symbols, answers, strict=True):
            files = [
                FileDescriptorProto.FromString(file)
                for file in answer.file_descriptor_response.file_descriptor_proto
            ]
            assert symbol.rpartition(".")[0] in {file.package for file in files}


async def test_two_servers_in_one_process(tmp_path: Path) -> None:
    """Two servers in one process both serve, reflection included."""
    log = tmp_path / "log"
    first, second = (listen_at(f"127.0.0.1:{free_port()}") for _ in range(2))
    async with served(first, log) as one, served(second, log) as two:
        for channel in (one, two):
            await RouterClient(ChannelTransport(channel, mesh_codec())).list_models(ListModelsRequest())
            assert await _reflect(channel, reflection_pb2.ServerReflectionRequest(list_services=""))


async def test_metrics(tmp_path: Path) -> None:
    """A served call is counted by method and code, and the port is free again afterwards."""
    port = free_port()
    for _ in range(2):
        listen = listen_at(f"127.0.0.1:{free_port()}", metrics_port=port)
        async with served(listen, tmp_path / "log") as channel:
            await RouterClient(ChannelTransport(channel, mesh_codec())).list_models(ListModelsRequest())
            text = await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/metrics")
    method = "/weir.router.v1.Router/ListModels"
    assert f'weir_rpc_served_total{{code="OK",method="{method}"}} 1.0' in text
    assert f'weir_rpc_seconds_count{{method="{method}"}} 1.0' in text
    assert f'weir_rpc_active{{method="{method}"}} 0.0' in text


def _get(url: str) -> str:
    with urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback, from the test itself
        text: str = answer.read().decode()
        return text


@pytest.mark.parametrize("kind", ["tcp", "unix", "metrics"])
async def test_a_taken_address_is_named(tmp_path: Path, kind: str) -> None:
    """A second server on the same address fails with the address in its message, and leaves the first alone."""
    taken = free_port()
    first = listen_at(f"unix:{tmp_path}/run/router.sock" if kind == "unix" else f"127.0.0.1:{free_port()}")
    second = first
    if kind == "metrics":
        first = listen_at(first.address, metrics_port=taken)
        second = listen_at(f"127.0.0.1:{free_port()}", metrics_port=taken)
    service = NotedService()
    async with served(first, tmp_path / "log") as channel:
        with pytest.raises(AddressTakenError) as caught:
            async with served(second, tmp_path / "log", service):
                pass
        assert (str(taken) if kind == "metrics" else first.address) in str(caught.value)
        assert service.done in ([], ["start", "stop"])
        assert await _health(channel, "") == health_pb2.HealthCheckResponse.SERVING


async def test_a_stale_socket_is_taken_over(tmp_path: Path) -> None:
    """The socket file of a process that was killed does not stand in the way."""
    path = tmp_path / "router.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with served(listen_at(f"unix:{path}"), tmp_path / "log") as channel:
        assert await _health(channel, "") == health_pb2.HealthCheckResponse.SERVING


async def test_a_service_that_cannot_start(tmp_path: Path) -> None:
    """Its error comes out, and nothing that was not started is stopped."""
    service = NotedService(fails=True)
    with pytest.raises(OSError, match="no database"):
        async with served(listen_at(f"127.0.0.1:{free_port()}"), tmp_path / "log", service):
            pass
    assert service.done == ["start"]


async def test_endless_calls_are_ended_first(tmp_path: Path) -> None:
    """A service with endless calls is told of the drain before it is stopped."""
    service = WatchedService()
    async with served(listen_at(f"127.0.0.1:{free_port()}"), tmp_path / "log", service):
        assert service.done == ["start"]
    assert service.done == ["start", "drain", "stop"]


class Child:
    """A process of the mesh, with its log."""

    def __init__(self, process: Process, address: str) -> None:
        self.process = process
        self.address = address
        self.events: list[str] = []

    async def until(self, event: str) -> None:
        """Reads the log up to `event`; every line of it is a JSON object."""
        assert self.process.stderr is not None
        while event not in self.events:
            line = await self.process.stderr.readline()
            assert line, f"the process ended after {self.events}"
            self.events.append(json.loads(line)["event"])

    async def finish(self) -> int:
        """Reads the rest of the log and returns the exit status."""
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.events.append(json.loads(line)["event"])
        return await self.process.wait()


@pytest.fixture
async def child() -> AsyncIterator[Child]:
    """A running process with a long drain limit."""
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes.slow_process", address, str(free_port()), "30", stderr=PIPE
    )
    running = Child(process, address)
    try:
        await asyncio.wait_for(running.until("serving"), 30)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(child: Child, number: signal.Signals) -> None:
    """After SIGTERM or SIGINT the running stream ends well, new calls are refused, and the exit status is 0."""
    async with asyncio.timeout(_PATIENCE_S), open_channel(child.address) as channel:
        client = RouterClient(ChannelTransport(channel, mesh_codec()))
        events = client.generate(GenerateRequest())
        texts = [(await anext(events)).delta]
        child.process.send_signal(number)
        texts += [event.delta async for event in events]
        assert [delta.text for delta in texts if delta] == ["first", "last"]
        assert await child.finish() == 0
        with pytest.raises(WeirError) as caught:
            await client.list_models(ListModelsRequest())
        assert isinstance(caught.value, UpstreamError)
    assert child.events[-2:] == ["service stopped", "stopped"]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(child: Child, second: signal.Signals) -> None:
    """While a stream holds the drain up, a second signal ends the process by that signal."""
    async with asyncio.timeout(_PATIENCE_S), open_channel(child.address) as channel:
        events = RouterClient(ChannelTransport(channel, mesh_codec())).generate(
            GenerateRequest(model="endless")
        )
        await anext(events)
        child.process.send_signal(signal.SIGTERM)
        await child.until("draining")
        child.process.send_signal(second)
        assert await child.finish() == -second
