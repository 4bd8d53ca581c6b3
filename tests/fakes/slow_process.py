"""A process of the mesh whose stream is slow: `python -m tests.fakes.slow_process ADDRESS METRICS_PORT DRAIN_S`.

Sends one delta, sleeps half a second, sends another. For the model "endless" it sends one and waits for ever.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from prometheus_client import CollectorRegistry

from gen.rpc import RpcContext
from gen.weir.router.v1 import (
    Delta,
    EmbedRequest,
    EmbedResponse,
    GenerateRequest,
    GenerateResponse,
    ListModelsRequest,
    ListModelsResponse,
)
from gen.weir.router.v1.service import RouterServicer
from meshkit.server import run, serve
from meshkit.serving import Servicer
from meshkit.settings import Listen
from meshkit.telemetry import Logger


class SlowRouter(RouterServicer):
    """Answers slowly."""

    async def generate(
        self, request: GenerateRequest, context: RpcContext
    ) -> AsyncIterator[GenerateResponse]:
        yield GenerateResponse(delta=Delta(text="first"))
        await (asyncio.Event().wait() if request.model == "endless" else asyncio.sleep(0.5))
        yield GenerateResponse(delta=Delta(text="last"))

    async def list_models(self, request: ListModelsRequest, context: RpcContext) -> ListModelsResponse:
        return ListModelsResponse()

    async def embed(self, request: EmbedRequest, context: RpcContext) -> EmbedResponse:
        return EmbedResponse()


class SlowService:
    """Says on the log when it is started and stopped."""

    def __init__(self, log: Logger) -> None:
        self.servicers: Sequence[Servicer] = (SlowRouter(),)
        self._log = log

    async def start(self) -> None:
        self._log.info("service started")

    async def stop(self) -> None:
        self._log.info("service stopped")


def _listen(address: str, metrics_port: str, drain_s: str) -> Listen:
    return Listen(
        address=address,
        metrics_host="127.0.0.1",
        metrics_port=int(metrics_port),
        drain=timedelta(seconds=float(drain_s)),
    )


async def main() -> None:
    """Serves until a signal."""
    log = Logger("router")
    await serve("router", SlowService(log), _listen(*sys.argv[1:]), CollectorRegistry(), log)


if __name__ == "__main__":
    run(main)
