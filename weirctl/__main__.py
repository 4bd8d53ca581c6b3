"""The `weir` command."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0 done, 1 failed, 2 wrong use or settings."""
    arguments = _parser().parse_args(argv)
    module, _, function = arguments.command.partition(":")
    # Only the command's own module: `weir status` need not wait for what `weir up` imports.
    command = getattr(importlib.import_module(f"weirctl.{module}"), function)
    try:
        status: int = command(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of a table has seen enough. Python would complain once more when it flushes at the end.
        sys.stdout = None
        return 0
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="weir",
        description="A hybrid AI gateway on this machine.",
        epilog="State lies in WEIR_HOME (.weir unless set). `weir COMMAND --help` says more.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _up(commands)
    _down(commands)
    status = commands.add_parser("status", help="show every part: state, process, restarts, memory, address")
    status.set_defaults(command="status:run")
    _ask(commands)
    _keys(commands)
    _usage(commands)
    return parser


Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def _up(commands: Commands[argparse.ArgumentParser]) -> None:
    up = commands.add_parser("up", help="start everything, and stay until Ctrl-C")
    up.add_argument("--detach", action="store_true", help="return once all is healthy; `weir down` ends it")
    up.add_argument(
        "--sandbox-cloud",
        action="store_true",
        help="start a second local model as a stand-in for a paid provider, as target `cloud`",
    )
    up.add_argument("--config", type=Path, metavar="FILE", help="settings; ./weir.yaml if it is there")
    # The pipe of a detached start.
    up.add_argument("--waiting-fd", type=int, help=argparse.SUPPRESS)
    up.set_defaults(command="up:run")


def _down(commands: Commands[argparse.ArgumentParser]) -> None:
    down = commands.add_parser("down", help="drain and stop everything")
    down.add_argument("--force", action="store_true", help="do not wait for running requests")
    down.add_argument(
        "--within-s",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long to wait for the end (%(default)g)",
    )
    down.set_defaults(command="down:run")


def _ask(commands: Commands[argparse.ArgumentParser]) -> None:
    ask = commands.add_parser("ask", help="ask one question and stream the answer")
    ask.add_argument("question")
    ask.add_argument("--model", help="a name of `weir.yaml`; the default model unless set")
    ask.add_argument(
        "--no-stream", dest="stream", action="store_false", help="print the answer when it is whole"
    )
    ask.add_argument(
        "--timeout-s", type=float, default=600.0, metavar="SECONDS", help="longest silence (%(default)g)"
    )
    ask.set_defaults(command="ask:run")


def _keys(commands: Commands[argparse.ArgumentParser]) -> None:
    keys = commands.add_parser("keys", help="make API keys").add_subparsers(required=True, metavar="COMMAND")
    create = keys.add_parser("create", help="make a key; its token is shown once")
    create.add_argument("--org", required=True, help="the organisation that pays")
    create.add_argument("--team", required=True, help="the team within it")
    create.add_argument("--label", default="", help="what it is for")
    create.add_argument("--expires-days", type=float, metavar="DAYS", help="never, unless set")
    for option, of in (
        ("--model", "models that the key may ask for"),
        ("--target", "targets that may answer it"),
    ):
        create.add_argument(
            option, dest=f"{option[2:]}s", metavar="GLOB", action="append", default=[],
            help=f"{of}, as a shell pattern in quotes; may be given again; all, unless set",
        )  # fmt: skip
    create.set_defaults(command="keys:create")


def _usage(commands: Commands[argparse.ArgumentParser]) -> None:
    usage = commands.add_parser("usage", help="show what was used and what it cost")
    usage.add_argument("--since", metavar="WHEN", help="30m, 24h, 7d, or a date or time in ISO 8601")
    usage.set_defaults(command="usage:run")


if __name__ == "__main__":
    sys.exit(main())
