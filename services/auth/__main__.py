"""`python -m services.auth`: settings -> bootstrap -> serve."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry

from meshkit.errors import UpstreamError
from meshkit.postgres import DatabaseUnavailableError, MigrationError
from meshkit.server import AddressTakenError, run, serve
from meshkit.settings import SettingsError, load
from meshkit.telemetry import Logger
from services.auth.bootstrap import build
from services.auth.settings import AuthSettings

_BAD_SETTINGS = 2
_CANNOT_START = 1


def main() -> int:
    """Serves until SIGINT or SIGTERM. The exit status: 2 for settings that cannot be used, 1 for a failed start."""
    log = Logger("auth")
    try:
        settings = load(AuthSettings)
        run(lambda: _serve(settings, log))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return _BAD_SETTINGS
    except (DatabaseUnavailableError, MigrationError, UpstreamError, AddressTakenError) as error:
        log.warning("cannot start", reason=str(error))
        return _CANNOT_START
    return 0


async def _serve(settings: AuthSettings, log: Logger) -> None:
    registry = CollectorRegistry()
    service = build(settings, registry, log)
    await serve("auth", service, settings.listen("auth"), registry, log)


if __name__ == "__main__":
    sys.exit(main())
