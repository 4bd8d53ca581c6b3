"""`python -m services.cloud_adapter`: settings -> bootstrap -> serve."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry

from meshkit.process import exit_status
from meshkit.reload import Reload, Reloaded
from meshkit.server import serve
from meshkit.settings import load
from meshkit.telemetry import Logger
from services.cloud_adapter.bootstrap import build
from services.cloud_adapter.settings import LIVE, CloudAdapterSettings


def main() -> int:
    """Serves until SIGINT or SIGTERM. Returns the exit status."""
    log = Logger("cloud_adapter")
    return exit_status(log, lambda: _serve(log))


async def _serve(log: Logger) -> None:
    settings, registry = load(CloudAdapterSettings), CollectorRegistry()
    service = build(settings, registry, log)
    reload = Reload([Reloaded(service, settings, LIVE)], registry, log)
    await serve("cloud_adapter", service, settings.listen("cloud_adapter"), registry, log, reload)


if __name__ == "__main__":
    sys.exit(main())
