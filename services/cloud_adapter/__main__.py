"""`python -m services.cloud_adapter`: settings -> bootstrap -> serve."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry

from meshkit.process import exit_status
from meshkit.server import serve
from meshkit.settings import load
from meshkit.telemetry import Logger
from services.cloud_adapter.bootstrap import build
from services.cloud_adapter.settings import CloudAdapterSettings


def main() -> int:
    """Serves until SIGINT or SIGTERM. Returns the exit status."""
    log = Logger("cloud_adapter")
    return exit_status(log, lambda: _serve(log))


async def _serve(log: Logger) -> None:
    settings, registry = load(CloudAdapterSettings), CollectorRegistry()
    await serve(
        "cloud_adapter", build(settings, registry, log), settings.listen("cloud_adapter"), registry, log
    )


if __name__ == "__main__":
    sys.exit(main())
