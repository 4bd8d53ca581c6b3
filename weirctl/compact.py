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
from typing import Final

from prometheus_client import CollectorRegistry

from meshkit.errors import WeirError
from meshkit.inprocess import InProcessTransport
from meshkit.postgres import DatabaseUnavailableError, MigrationError
from meshkit.process import exit_status
from meshkit.reload import Reload, Reloaded
from meshkit.server import Service, serve
from meshkit.serving import Servicer
from meshkit.settings import load
from meshkit.telemetry import Logger
from services.auth import settings as auth_settings
from services.auth.bootstrap import build as build_auth
from services.auth.settings import AuthSettings
from services.cloud_adapter import settings as cloud_adapter_settings
from services.cloud_adapter.bootstrap import build as build_cloud_adapter
from services.cloud_adapter.settings import CloudAdapterSettings
from services.ledger import settings as ledger_settings
from services.ledger.bootstrap import build as build_ledger
from services.ledger.settings import LedgerSettings
from services.router import settings as router_settings
from services.router.bootstrap import Neighbours
from services.router.bootstrap import build as build_router
from services.router.settings import RouterSettings


class Compact:
    """Every service of one process (meshkit.server.Service). Neighbours start before the router and stop after it."""

    def __init__(self, worker: int, registry: CollectorRegistry, log: Logger) -> None:
        of_auth, of_ledger = load(AuthSettings), load(LedgerSettings)
        of_adapter, of_router = load(CloudAdapterSettings), load(RouterSettings)
        auth = build_auth(of_auth, registry, log)
        asks_auth = InProcessTransport(auth.servicer, log, caller="ledger")
        ledger = build_ledger(of_ledger, asks_auth, registry, log)
        cloud_adapter = build_cloud_adapter(of_adapter, registry, log)
        neighbours = Neighbours(
            auth=InProcessTransport(auth.servicer, log, caller="router"),
            cloud_adapter=InProcessTransport(cloud_adapter.servicer, log, caller="router"),
            ledger=InProcessTransport(ledger.servicer, log, caller="router"),
        )
        router = build_router(of_router, neighbours, registry, log)
        self.reload: Final = Reload(
            [
                Reloaded(auth, of_auth, auth_settings.LIVE),
                Reloaded(ledger, of_ledger, ledger_settings.LIVE),
                Reloaded(cloud_adapter, of_adapter, cloud_adapter_settings.LIVE),
                Reloaded(router, of_router, router_settings.LIVE),
            ],
            registry,
            log,
        )
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
    compact = Compact(worker, registry, log)
    await serve("router", compact, listen, registry, log, compact.reload)


if __name__ == "__main__":
    sys.exit(main())
