"""A service behind the edge, the Auth that guards it, and keys for it."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc
from psycopg import sql

from edge.settings import EdgeSettings
from meshkit.channel import open_channel
from meshkit.tokens import mint
from tests.mesh.edge.rig import FAST, Answer, Edge, edge, free_ports, until
from tests.mesh.edge.stand_in import Script, worker

SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass
class Upstream:
    """A service of somebody's, which keeps every byte that it gets and answers 200 to anything."""

    port: int
    received: bytearray = field(default_factory=bytearray, repr=False)
    connections: int = 0
    """How many were ever opened."""

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def lines(self) -> list[str]:
        """All lines that came, in lower case."""
        return self.received.decode("latin-1").lower().split("\r\n")

    def header(self, name: str) -> list[str]:
        """Every value of a header that came."""
        return [line.partition(": ")[2] for line in self.lines if line.startswith(f"{name}: ")]

    def forget(self) -> None:
        """Begins anew."""
        self.received.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.received += head
                length = re.search(rb"\r\ncontent-length: (\d+)", head)
                if length is not None:
                    self.received += await reader.readexactly(int(length[1]))
                elif b"\r\ntransfer-encoding: chunked" in head:
                    self.received += await reader.readuntil(b"0\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except asyncio.IncompleteReadError as error:
            self.received += error.partial
        finally:
            writer.close()


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    """A service that runs."""
    found = Upstream(0)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()


@dataclass
class AuthProcess:
    """`python -m services.auth` over a database."""

    folder: Path
    dsn: str
    port: int
    process: Process | None = None

    @property
    def address(self) -> str:
        """Where it serves."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Returns once it serves."""
        config = self.folder / "weir.yaml"
        metrics = free_ports(1)[0]
        config.write_text(
            f"transport: loopback\nports: {{auth: {self.port}, metrics: {metrics}}}\n", encoding="utf-8"
        )
        environment = {
            "WEIR_CONFIG": str(config), "WEIR_HOME": str(self.folder), "WEIR_POSTGRES_DSN": self.dsn,
        }  # fmt: skip
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.auth", env=environment, stdin=DEVNULL, stderr=DEVNULL
        )
        await until(self._serves)

    async def kill(self) -> None:
        """Ends it as a crash would."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, "auth ended"
        async with open_channel(self.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == SERVING)


@dataclass
class Keys:
    """Makes and alters keys in the database, as an administrator by hand."""

    dsn: str
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def make(self, *, scopes: str = "{usage:read}", org: str = "acme", **columns: str) -> str:
        """The token of a new key; `columns` are further ones of its row."""
        token = mint(secrets.token_bytes)
        values = {
            "id": token.key_id, "secret_sha256": token.secret_sha256, "org": org, "team": "search",
            "label": f"key {next(self._numbers)}", "created_at": "2020-01-01Z", "scopes": scopes, **columns,
        }  # fmt: skip
        names = sql.SQL(", ").join(map(sql.Identifier, values))
        places = sql.SQL(", ").join(map(sql.Placeholder, values))
        await self._do(sql.SQL("INSERT INTO auth.key ({}) VALUES ({})").format(names, places), values)
        return token.text

    async def revoke(self, token: str) -> None:
        """Committed when this returns."""
        statement = sql.SQL("UPDATE auth.key SET revoked_at = now() WHERE id = %(id)s")
        await self._do(statement, {"id": token.split("_")[1]})

    async def _do(self, statement: sql.SQL | sql.Composed, values: Mapping[str, object]) -> None:
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            await connection.execute(statement, values)


@dataclass
class Guarded:
    """All of it."""

    edge: Edge
    script: Script
    """What the router worker saw."""
    auth: AuthProcess
    keys: Keys
    docs: Upstream
    """Behind /docs/, for keys with the scope usage:read."""
    open: Upstream
    """Behind /open/, for any good key; sees paths without the prefix, and the key."""

    async def get(self, path: str, token: str | None = None, **headers: str) -> Answer:
        """A GET; in a header's name `_` stands for `-`."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            given["authorization"] = f"Bearer {token}"
        return await self.edge.ask("GET", path, None, given)


@asynccontextmanager
async def guarded(folder: Path, dsn: str, **settings: object) -> AsyncIterator[Guarded]:
    """An edge before a router worker and two services, and Auth over the database; `settings` are the edge's."""
    auth_port, router_port = free_ports(2)
    auth = AuthProcess(folder, dsn, auth_port)
    script = Script()
    router = f"127.0.0.1:{router_port}"
    async with worker(router, script), upstream() as docs, upstream() as other:
        services = {
            "docs": {"prefix": "/docs/", "address": docs.address, "scope": "usage:read"},
            "open": {
                "prefix": "/open/", "address": other.address, "strip_prefix": True, "keep_authorization": True
            },
        }  # fmt: skip
        chosen = EdgeSettings.model_validate({**FAST.model_dump(), "services": services, **settings})
        try:
            await auth.start()
            async with edge(folder, [router], chosen, auth=auth.address) as running:
                yield Guarded(running, script, auth, Keys(dsn), docs, other)
        finally:
            await auth.kill()
