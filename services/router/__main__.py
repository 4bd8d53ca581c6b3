"""`python -m services.router --worker N`: settings -> bootstrap -> serve."""

from __future__ import annotations

import argparse
import sys
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from meshkit.errors import LedgerUnavailable, UpstreamError
from meshkit.process import exit_status
from meshkit.reload import Reload, Reloaded
from meshkit.server import serve
from meshkit.settings import load
from meshkit.telemetry import Logger
from services.router.bootstrap import build, neighbours_over_channels
from services.router.settings import LIVE, RouterSettings


def main() -> int:
    """Serves until SIGINT or SIGTERM. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.router")
    parser.add_argument("--worker", type=int, default=0, help="number of this worker, from 0")
    worker = parser.parse_args().worker
    log = Logger("router")
    return exit_status(log, lambda: _serve(worker, log), UpstreamError, LedgerUnavailable, OSError)


async def _serve(worker: int, log: Logger) -> None:
    settings, registry = load(RouterSettings), CollectorRegistry()
    async with AsyncExitStack() as exits:
        service = build(settings, neighbours_over_channels(settings, exits), registry, log)
        reload = Reload([Reloaded(service, settings, LIVE)], registry, log)
        await serve("router", service, settings.listen("router", worker), registry, log, reload)


if __name__ == "__main__":
    sys.exit(main())
