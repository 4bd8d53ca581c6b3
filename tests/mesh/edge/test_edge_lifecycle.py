"""Workers that die and come back, and an edge that is drained."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import grpc
import pytest

from edge.command import command, validate_command
from edge.drain import active_requests, drain
from edge.render import render
from edge.settings import EdgeSettings
from meshkit.channel import open_channel
from tests.mesh.edge import stand_in
from tests.mesh.edge.rig import CHAT, FAST, LIMIT_S, Edge, call, edge, free_ports, until
from tests.mesh.edge.stand_in import DO, FIRST, LAST, Script, worker

LIST_MODELS = "/weir.router.v1.Router/ListModels"


@asynccontextmanager
async def worker_process(address: str, name: str) -> AsyncIterator[Process]:
    """A router worker in a process of its own, to be killed."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", stand_in.__name__, address, name)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def loopback() -> str:
    """An address for a worker."""
    return f"127.0.0.1:{free_ports(1)[0]}"


def healthz(running: Edge, status: int) -> asyncio.Task[None]:
    """Done once /healthz answers with that status."""

    async def answers() -> bool:
        return (await running.ask("GET", "/healthz")).status == status

    return asyncio.ensure_future(until(answers))


async def test_envoy_accepts_the_defaults(tmp_path: Path) -> None:
    """`--mode validate` with the settings nobody changed, TCP and Unix workers."""
    config = tmp_path / "edge.json"
    routers = ["127.0.0.1:50051", "unix:/run/weir/router-1.sock", "[::1]:50053"]
    config.write_text(render(EdgeSettings(), port=8080, admin_port=9901, routers=routers), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(*validate_command(config), stderr=asyncio.subprocess.PIPE)
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")


async def test_no_worker_at_all(tmp_path: Path) -> None:
    """503 at once: OpenAI's shape and a wait for HTTP, UNAVAILABLE for gRPC; /healthz says so too."""
    async with edge(tmp_path, [loopback()], healthy=False) as running:
        await healthz(running, 503)
        for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/healthz")):
            answer = await running.ask(method, path)
            assert answer.status == 503
            assert answer.error["type"] == "server_error"
            if path != "/healthz":
                assert (answer.error["code"], answer.headers["retry-after"]) == ("no_healthy_target", "1")
        async with open_channel(running.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(channel, LIST_MODELS)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_worker_comes_back(tmp_path: Path) -> None:
    """Stopped and started on the same port, a worker serves again after at most a few health checks."""
    address, script = loopback(), Script()
    async with worker(address, script) as first, edge(tmp_path, [address]) as running:
        assert (await running.chat(b"1")).body == b"1"
        await first.stop()
        await healthz(running, 503)
        async with worker(address, script):
            await healthz(running, 200)
            assert (await running.chat(b"1")).body == b"1"


async def test_workers_on_unix_sockets(tmp_path: Path) -> None:
    """A worker may listen on a path."""
    address, script = f"unix:{tmp_path}/router.sock", Script()
    async with worker(address, script), edge(tmp_path, [address]) as running:
        assert (await running.chat(b"1")).body == b"1"


async def test_one_dead_worker_of_two_is_not_noticed(tmp_path: Path) -> None:
    """SIGKILL of a worker: no request that starts afterwards fails."""
    alive, dead, script = loopback(), loopback(), Script()
    async with (
        worker_process(dead, "dead") as process,
        worker(alive, script, "alive"),
        edge(tmp_path, [alive, dead]) as running,
    ):
        await until(lambda: _served_by(running, "dead"))
        process.kill()
        await process.wait()
        answers = [await running.chat(b"x" * 1024 * 1024) for _ in range(50)]
    assert {answer.status for answer in answers} == {200}
    assert {answer.headers["x-weir-target"] for answer in answers} == {"alive"}


async def _served_by(running: Edge, name: str) -> bool:
    return (await running.chat()).headers["x-weir-target"] == name


async def test_requests_that_a_dying_worker_had_are_not_asked_elsewhere(tmp_path: Path) -> None:
    """What reached a worker is never tried again here, as it may be paid for: 503, and the other worker saw nothing."""
    alive, dead, script = loopback(), loopback(), Script()
    async with (
        worker_process(dead, "dead") as process,
        worker(alive, script, "alive"),
        edge(tmp_path, [alive, dead]) as running,
    ):
        await until(lambda: _served_by(running, "dead"))
        script.reset()
        asked = [asyncio.ensure_future(running.chat(x_test_do="silent")) for _ in range(10)]
        await until(lambda: _active(running, {alive, dead}, 10))
        at_alive = await _active_requests(running, {alive})
        await until(lambda: _noted(script, at_alive))
        assert at_alive < 10
        process.kill()
        await until(lambda: _active(running, {alive, dead}, at_alive))
        assert len(script.seen) == at_alive
        script.release.set()
        answers = await asyncio.gather(*asked)
    failed = [answer for answer in answers if answer.status != 200]
    assert len(failed) == 10 - at_alive
    assert {(answer.status, answer.error["code"]) for answer in failed} == {(503, "upstream_error")}


async def _active_requests(running: Edge, workers: set[str]) -> int:
    """How many requests Envoy has under way at these workers."""
    async with running.client.get(f"http://{running.admin}/clusters") as response:
        lines = (await response.text()).splitlines()
    rows = [line.split("::") for line in lines]
    return sum(int(row[3]) for row in rows if row[1] in workers and row[2] == "rq_active")


async def _active(running: Edge, workers: set[str], count: int) -> bool:
    return await _active_requests(running, workers) == count


async def _noted(script: Script, count: int) -> bool:
    return len(script.seen) == count


async def test_drain_finishes_streams_and_refuses_new_ones(tmp_path: Path) -> None:
    """A running stream gets its end; new connections are refused meanwhile; then Envoy is gone."""
    address, script = loopback(), Script()
    async with worker(address, script), edge(tmp_path, [address]) as running:
        async with running.client.post(running.url + CHAT, data=b"{}", headers={DO: "stream"}) as response:
            assert await response.content.readexactly(len(FIRST)) == FIRST
            draining = asyncio.ensure_future(drain(running.admin, timedelta(seconds=LIMIT_S)))
            await until(lambda: _refuses(running))
            assert await active_requests(running.admin) == 1
            assert not draining.done()
            script.release.set()
            assert await response.read() == LAST
        assert await draining is True
        assert await running.process.wait() == 0


async def _refuses(running: Edge) -> bool:
    try:
        _, writer = await asyncio.open_connection(running.host, running.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_drain_has_a_limit(tmp_path: Path) -> None:
    """A stream that does not end is cut when the time is up."""
    address, script = loopback(), Script()
    async with worker(address, script), edge(tmp_path, [address]) as running:
        async with running.client.post(running.url + CHAT, data=b"{}", headers={DO: "stream"}) as response:
            assert await response.content.readexactly(len(FIRST)) == FIRST
            assert await drain(running.admin, timedelta(seconds=0.3)) is False
            assert await running.process.wait() == 0
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        await script.cancelled.wait()


async def test_drain_of_an_edge_that_is_gone(tmp_path: Path) -> None:
    """Nothing to do, and no error."""
    assert await drain(loopback(), timedelta(seconds=1)) is True


async def test_two_edges_on_one_machine(tmp_path: Path) -> None:
    """They share nothing; a third on a taken port ends at once and says why."""
    address, script = loopback(), Script()
    async with worker(address, script), edge(tmp_path, [address]) as one, edge(tmp_path, [address]) as two:
        assert [(await each.chat(b"1")).status for each in (one, two)] == [200, 200]
        config = tmp_path / "third.json"
        text = render(FAST, port=one.port, admin_port=free_ports(1)[0], routers=[address])
        config.write_text(text, encoding="utf-8")
        third = await asyncio.create_subprocess_exec(*command(config, FAST), stderr=asyncio.subprocess.PIPE)
        _, stderr = await third.communicate()
        assert third.returncode != 0
        assert b"Address already in use" in stderr
