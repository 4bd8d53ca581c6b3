"""The ledger's process: settings, bootstrap, serve."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry

from meshkit.errors import LedgerUnavailable
from meshkit.postgres import DatabaseUnavailableError, MigrationError
from meshkit.server import AddressTakenError, run, serve
from meshkit.settings import SettingsError, load
from meshkit.telemetry import Logger
from services.ledger.bootstrap import build
from services.ledger.settings import LedgerSettings

_BAD_SETTINGS = 2
_CANNOT_START = 1


def _serve(log: Logger) -> None:
    settings = load(LedgerSettings)
    registry = CollectorRegistry()

    async def whole() -> None:
        await serve("ledger", build(settings, registry, log), settings.listen("ledger"), registry, log)

    run(whole)


def main() -> int:
    """Runs the ledger until it is told to stop; returns the exit status."""
    log = Logger("ledger")
    try:
        _serve(log)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return _BAD_SETTINGS
    except (AddressTakenError, DatabaseUnavailableError, MigrationError, LedgerUnavailable) as error:
        log.warning("cannot start", error=type(error).__name__, reason=str(error))
        return _CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
