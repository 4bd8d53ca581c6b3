"""Runs the cloud adapter: `python -m services.cloud_adapter`."""

from __future__ import annotations

import sys
from typing import Final

from prometheus_client import CollectorRegistry

from meshkit.server import AddressTakenError, run, serve
from meshkit.settings import SettingsError, load
from meshkit.telemetry import Logger
from services.cloud_adapter.bootstrap import build
from services.cloud_adapter.settings import CloudAdapterSettings

_NAME: Final = "cloud_adapter"
_BAD_SETTINGS = 2
_CANNOT_START = 1


def main() -> int:
    """Serves until SIGINT or SIGTERM. The exit status: 2 for unusable settings, 1 for a taken address."""
    try:
        settings = load(CloudAdapterSettings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return _BAD_SETTINGS
    registry = CollectorRegistry()
    log = Logger(_NAME)

    async def serving() -> None:
        await serve(_NAME, build(settings, registry, log), settings.listen(_NAME), registry, log)

    try:
        run(serving)
    except AddressTakenError as error:
        log.warning("cannot start", reason=str(error))
        return _CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
