"""`python -m services.ledger`: settings -> bootstrap -> serve."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from meshkit.errors import LedgerUnavailable
from meshkit.postgres import DatabaseUnavailableError, MigrationError
from meshkit.process import exit_status
from meshkit.reload import Reload, Reloaded
from meshkit.server import serve
from meshkit.settings import load
from meshkit.telemetry import Logger
from services.ledger.bootstrap import auth_over_channel, build
from services.ledger.settings import LIVE, LedgerSettings


def main() -> int:
    """Serves until SIGINT or SIGTERM. Returns the exit status."""
    log = Logger("ledger")
    return exit_status(log, lambda: _serve(log), DatabaseUnavailableError, MigrationError, LedgerUnavailable)


async def _serve(log: Logger) -> None:
    settings, registry = load(LedgerSettings), CollectorRegistry()
    async with AsyncExitStack() as exits:
        service = build(settings, auth_over_channel(settings, exits), registry, log)
        reload = Reload([Reloaded(service, settings, LIVE)], registry, log)
        await serve("ledger", service, settings.listen("ledger"), registry, log, reload)


if __name__ == "__main__":
    sys.exit(main())
