"""`python -m services.router --worker N`: settings -> bootstrap -> serve."""

from __future__ import annotations

import argparse
import sys
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from meshkit.errors import LedgerUnavailable, UpstreamError
from meshkit.server import AddressTakenError, run, serve
from meshkit.settings import SettingsError, load
from meshkit.telemetry import Logger
from services.router.bootstrap import build, neighbours_over_channels
from services.router.settings import RouterSettings

_BAD_SETTINGS = 2
_CANNOT_START = 1


def main() -> int:
    """Serves until SIGINT or SIGTERM. The exit status: 2 for settings that cannot be used, 1 for a failed start."""
    parser = argparse.ArgumentParser(prog="python -m services.router")
    parser.add_argument("--worker", type=int, default=0, help="number of this worker, from 0")
    worker = parser.parse_args().worker
    log = Logger("router")
    try:
        settings = load(RouterSettings)
        run(lambda: _serve(settings, worker, log))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return _BAD_SETTINGS
    except (UpstreamError, LedgerUnavailable, AddressTakenError, OSError) as error:
        log.warning("cannot start", reason=str(error))
        return _CANNOT_START
    return 0


async def _serve(settings: RouterSettings, worker: int, log: Logger) -> None:
    registry = CollectorRegistry()
    async with AsyncExitStack() as exits:
        neighbours = neighbours_over_channels(settings, exits)
        service = build(settings, neighbours, registry, log)
        await serve("router", service, settings.listen("router", worker), registry, log)


if __name__ == "__main__":
    sys.exit(main())
