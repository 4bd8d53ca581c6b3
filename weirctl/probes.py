"""How each kind of part proves that it serves. Each raises NotReady, and nothing else, while it does not."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Awaitable, Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshkit.certificates import CertificateUnusable
from meshkit.channel import open_channel
from meshkit.identity import Towards
from weirctl import postgres_server as postgres
from weirctl.part import NotReady
from weirctl.triton_probe import TritonNotReady, TritonProbe
from weirctl.triton_settings import TritonSettings

Probe = Callable[[], Awaitable[None]]

_ANSWER_LIMIT_S = 2.0
_TRITON_ANSWER_LIMIT_S = 10.0


def grpc_serving(address: str, towards: Towards | None = None) -> Probe:
    """A service of the mesh: grpc.health.v1 says SERVING for the whole server."""

    def channel_to() -> grpc.aio.Channel:
        try:
            return open_channel(address, towards)
        except CertificateUnusable as error:
            raise NotReady(str(error)) from error

    async def probe() -> None:
        async with channel_to() as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_ANSWER_LIMIT_S)
            except grpc.aio.AioRpcError as error:
                # Up to the first semicolon: what follows are gRPC's inner workings.
                raise NotReady((error.details() or error.code().name).partition(";")[0]) from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise NotReady(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    return probe


def http_ok(address: str, path: str) -> Probe:
    """An HTTP server at `host:port`: 200 for a GET of `path`."""

    def ask() -> int:
        connection = http.client.HTTPConnection(address, timeout=_ANSWER_LIMIT_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    async def probe() -> None:
        try:
            status = await asyncio.to_thread(ask)
        except (OSError, http.client.HTTPException) as error:
            raise NotReady(f"http://{address}{path}: {error}") from error
        if status != http.client.OK:
            raise NotReady(f"http://{address}{path}: status {status}")

    return probe


def postgres_ready(files: postgres.PostgresFiles) -> Probe:
    """The embedded PostgreSQL: it takes connections, and its database exists."""

    async def probe() -> None:
        try:
            await asyncio.to_thread(postgres.wait_ready, files, timeout_s=0)
        except postgres.PostgresNotReady as error:
            raise NotReady(str(error)) from error

    return probe


def triton_answers(settings: TritonSettings) -> Probe:
    """The local Triton: its model has made a token."""

    async def probe() -> None:
        async with TritonProbe(settings) as triton:
            try:
                await triton.wait_ready(timeout_s=_TRITON_ANSWER_LIMIT_S)
            except TritonNotReady as error:
                raise NotReady(str(error)) from error

    return probe
