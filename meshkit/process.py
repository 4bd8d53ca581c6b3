"""The frame of every service's process: what its end says to whoever started it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Final

from meshkit.certificates import CertificateUnusable
from meshkit.server import AddressTakenError, run
from meshkit.settings import SettingsError
from meshkit.telemetry import Logger

BAD_SETTINGS: Final = 2
CANNOT_START: Final = 1


def exit_status(log: Logger, main: Callable[[], Awaitable[None]], *cannot_start: type[Exception]) -> int:
    """Runs `main` to its end, which is SIGINT or SIGTERM.

    Args:
        log: where a failed start is told.
        main: loads the settings, builds the service and serves it.
        cannot_start: what it raises when a start fails that may go well the next time; beside AddressTakenError and
            CertificateUnusable.

    Returns:
        0; 2 for settings that cannot be used, each fault on a line of standard error; 1 for a failed start, in the log.
    """
    cannot_start = (AddressTakenError, CertificateUnusable, *cannot_start)
    try:
        run(main)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_SETTINGS
    except cannot_start as error:
        log.warning("cannot start", error=type(error).__name__, reason=str(error))
        return CANNOT_START
    return 0
