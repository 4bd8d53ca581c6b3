"""A real Envoy for the edge's tests."""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from edge.command import command
from edge.render import render
from edge.settings import EdgeSettings, HealthCheck
from meshkit.errors import TABLE

LIMIT_S = 20.0
"""How long a condition may take to come true on a busy machine."""
CHAT = "/v1/chat/completions"
FAST = EdgeSettings(health_check=HealthCheck(interval_s=0.1, unhealthy_interval_s=0.1))


@dataclass
class Edge:
    """A running Envoy and a client of it."""

    host: str
    port: int
    admin_port: int
    routers: tuple[str, ...]
    process: Process
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        """Where HTTP clients go."""
        return f"http://{self.host}:{self.port}"

    @property
    def address(self) -> str:
        """Where gRPC clients go."""
        return f"{self.host}:{self.port}"

    @property
    def admin(self) -> str:
        """The admin interface."""
        return f"127.0.0.1:{self.admin_port}"

    async def chat(self, body: bytes = b"{}", **headers: str) -> Answer:
        """Posts a chat; in a header's name `_` stands for `-`."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask("POST", CHAT, body, names)

    async def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request, whole; without a body it has no content type, as a GET has none."""
        given = {} if body is None else {"content-type": "application/json"}
        given |= headers or {}
        async with self.client.request(method, self.url + path, data=body, headers=given) as response:
            return Answer(response.status, dict(response.headers), await response.read())


@dataclass
class Answer:
    """A whole HTTP answer; header names as lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def __post_init__(self) -> None:
        self.headers = {name.lower(): value for name, value in self.headers.items()}

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object. Fails where the answer is anything else."""
        assert self.headers["content-type"] == "application/json", self
        assert int(self.headers["content-length"]) == len(self.body), self
        whole = json.loads(self.body)
        assert set(whole) == {"error"}, whole
        assert set(whole["error"]) == {"message", "type", "param", "code"}, whole
        assert whole["error"]["type"] in {row.openai_type for row in TABLE.values()}
        assert not any(name.startswith(("grpc-", "x-weir-", "x-envoy-", "server")) for name in self.headers)
        found: dict[str, Any] = whole["error"]
        return found


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody had a moment ago."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in held]
    for server in held:
        server.close()
    return ports


@asynccontextmanager
async def edge(
    folder: Path,
    routers: Sequence[str],
    settings: EdgeSettings = FAST,
    *,
    healthy: bool = True,
    auth: str | None = None,
) -> AsyncIterator[Edge]:
    """An Envoy before `routers`; with `healthy` it is yielded once it knows one of them as healthy."""
    port, admin_port = free_ports(2)
    config = folder / f"edge-{port}.json"
    text = render(settings, port=port, admin_port=admin_port, routers=routers, auth=auth)
    config.write_text(text, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(*command(config, settings), start_new_session=True)
    try:
        async with aiohttp.ClientSession() as client:
            running = Edge(settings.host, port, admin_port, tuple(routers), process, client)
            await until(lambda: _answers(running, 200 if healthy else None))
            yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _answers(running: Edge, status: int | None) -> bool:
    assert running.process.returncode is None, "Envoy ended"
    try:
        answer = await running.ask("GET", "/healthz")
    except aiohttp.ClientError:
        return False
    return status in {None, answer.status}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once `condition` holds; fails after 20 s."""
    async with asyncio.timeout(LIMIT_S):
        while not await condition():  # noqa: ASYNC110 - what runs in another process can only be asked
            await asyncio.sleep(0.02)


async def call(channel: grpc.aio.Channel, path: str, **headers: str) -> bytes:
    """A native call with an empty message; in a header's name `_` stands for `-`."""
    # types-grpcio gives a call without a serializer no type of its own.
    unary: Any = channel.unary_unary(path)
    metadata = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    answer: bytes = await unary(b"", metadata=metadata or None)
    return answer


async def raw(running: Edge, data: bytes) -> bytes:
    """Sends bytes on a connection of its own and returns all that comes back until Envoy closes it."""
    reader, writer = await asyncio.open_connection(running.host, running.port)
    try:
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(LIMIT_S):
            return await reader.read()
    finally:
        writer.close()
