"""`python -m services.auth`: settings -> bootstrap -> serve."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry

from meshkit.errors import UpstreamError
from meshkit.postgres import DatabaseUnavailableError, MigrationError
from meshkit.process import exit_status
from meshkit.reload import Reload, Reloaded
from meshkit.server import serve
from meshkit.settings import load
from meshkit.telemetry import Logger
from services.auth.bootstrap import build
from services.auth.settings import LIVE, AuthSettings


def main() -> int:
    """Serves until SIGINT or SIGTERM. Returns the exit status."""
    log = Logger("auth")
    return exit_status(log, lambda: _serve(log), DatabaseUnavailableError, MigrationError, UpstreamError)


async def _serve(log: Logger) -> None:
    settings, registry = load(AuthSettings), CollectorRegistry()
    service = build(settings, registry, log)
    reload = Reload([Reloaded(service, settings, LIVE)], registry, log)
    await serve("auth", service, settings.listen("auth"), registry, log, reload)


if __name__ == "__main__":
    sys.exit(main())
