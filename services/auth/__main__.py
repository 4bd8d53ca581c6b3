"""`python -m services.auth`: settings -> bootstrap -> serve."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry

from meshkit.errors import UpstreamError
from meshkit.postgres import DatabaseUnavailableError, MigrationError
from meshkit.process import exit_status
from meshkit.server import serve
from meshkit.settings import load
from meshkit.telemetry import Logger
from services.auth.bootstrap import build
from services.auth.settings import AuthSettings


def main() -> int:
    """Serves until SIGINT or SIGTERM. Returns the exit status."""
    log = Logger("auth")
    return exit_status(log, lambda: _serve(log), DatabaseUnavailableError, MigrationError, UpstreamError)


async def _serve(log: Logger) -> None:
    settings, registry = load(AuthSettings), CollectorRegistry()
    await serve("auth", build(settings, registry, log), settings.listen("auth"), registry, log)


if __name__ == "__main__":
    sys.exit(main())
