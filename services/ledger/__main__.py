"""`python -m services.ledger`: settings -> bootstrap -> serve."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry

from meshkit.errors import LedgerUnavailable
from meshkit.postgres import DatabaseUnavailableError, MigrationError
from meshkit.process import exit_status
from meshkit.server import serve
from meshkit.settings import load
from meshkit.telemetry import Logger
from services.ledger.bootstrap import build
from services.ledger.settings import LedgerSettings


def main() -> int:
    """Serves until SIGINT or SIGTERM. Returns the exit status."""
    log = Logger("ledger")
    return exit_status(log, lambda: _serve(log), DatabaseUnavailableError, MigrationError, LedgerUnavailable)


async def _serve(log: Logger) -> None:
    settings, registry = load(LedgerSettings), CollectorRegistry()
    await serve("ledger", build(settings, registry, log), settings.listen("ledger"), registry, log)


if __name__ == "__main__":
    sys.exit(main())
