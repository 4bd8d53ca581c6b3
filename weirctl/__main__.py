"""The `weir` command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from weirctl.command_failed import CommandFailed
from weirctl.parser import parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0 done, 1 failed, 2 wrong use or settings."""
    arguments = parser().parse_args(argv)
    module, _, function = arguments.command.partition(":")
    # Only the command's own module: `weir status` need not wait for what `weir up` imports.
    command = getattr(importlib.import_module(f"weirctl.{module}"), function)
    try:
        status: int = command(arguments)
    except CommandFailed as error:
        sys.stderr.write(f"{error}\n")
        return error.status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of a table has seen enough. Python would complain once more when it flushes at the end.
        sys.stdout = None
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
