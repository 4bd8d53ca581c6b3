"""`python -m weirctl.compact --worker N`: the compact topology, every service inside each router process.

This is the one place above the services, so it alone may put them together; they never import each other. The router
reaches its neighbours by plain calls. Worker 0 also serves their RPCs on its own port, which the edge never routes, so
that keys can be made and usage asked for as in the separate topology.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from meshkit.errors import WeirError
from meshkit.inprocess import InProcessTransport
from meshkit.postgres import DatabaseUnavailableError, MigrationError
from meshkit.process import exit_status
from meshkit.server import Service, serve
from meshkit.serving import Servicer
from meshkit.settings import load
from meshkit.telemetry import Logger
from services.auth.bootstrap import build as build_auth
from services.auth.settings import AuthSettings
from services.cloud_adapter.bootstrap import build as build_cloud_adapter
from services.cloud_adapter.settings import CloudAdapterSettings
from services.ledger.bootstrap import build as build_ledger
from services.ledger.settings import LedgerSettings
from services.router.bootstrap import Neighbours
from services.router.bootstrap import build as build_router
from services.router.settings import RouterSettings


class Compact:
    """Every service of one process (meshkit.server.Service). Neighbours start before the router and stop after it."""

    def __init__(self, worker: int, registry: CollectorRegistry, log: Logger) -> None:
        auth = build_auth(load(AuthSettings), registry, log)
        ledger = build_ledger(load(LedgerSettings), registry, log)
        cloud_adapter = build_cloud_adapter(load(CloudAdapterSettings), registry, log)
        neighbours = Neighbours(
            auth=InProcessTransport(auth.servicer, log),
            cloud_adapter=InProcessTransport(cloud_adapter.servicer, log),
            ledger=InProcessTransport(ledger.servicer, log),
        )
        router = build_router(load(RouterSettings), neighbours, registry, log)
        self._auth = auth
        self._services: Sequence[Service] = (auth, ledger, cloud_adapter, router)
        served = self._services if worker == 0 else (router,)
        self.servicers: Sequence[Servicer] = [servicer for one in served for servicer in one.servicers]
        self._exits = AsyncExitStack()

    async def start(self) -> None:
        """Starts all; if one cannot, those before it are stopped again."""
        async with AsyncExitStack() as exits:
            for service in self._services:
                await service.start()
                exits.push_async_callback(service.stop)
            self._exits = exits.pop_all()

    async def drain(self) -> None:
        """Ends the key watches of other processes; the router's own goes with the router."""
        await self._auth.drain()

    async def stop(self) -> None:
        """Stops all, the router first."""
        await self._exits.aclose()


def main() -> int:
    """Serves until SIGINT or SIGTERM. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m weirctl.compact")
    parser.add_argument("--worker", type=int, default=0, help="number of this worker, from 0")
    worker = parser.parse_args().worker
    log = Logger("router")
    return exit_status(
        log, lambda: _serve(worker, log), DatabaseUnavailableError, MigrationError, WeirError, OSError
    )


async def _serve(worker: int, log: Logger) -> None:
    registry = CollectorRegistry()
    listen = load(RouterSettings).listen("router", worker)
    await serve("router", Compact(worker, registry, log), listen, registry, log)


if __name__ == "__main__":
    sys.exit(main())
