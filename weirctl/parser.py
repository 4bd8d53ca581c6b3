"""What may be typed after `weir`.

No command's own module is imported here: `weir status` need not wait for what `weir up` imports.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from weirctl import parser_keys
from weirctl.option_types import positive

Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it

_SINCE = "30m, 24h, 7d, or a date or time in ISO 8601"


def parser() -> argparse.ArgumentParser:
    """Of the whole command; `command` of its result is `<module of weirctl>:<function>`."""
    whole = argparse.ArgumentParser(
        prog="weir",
        description="A hybrid AI gateway on this machine.",
        epilog="State lies in WEIR_HOME (.weir unless set). `weir COMMAND --help` says more.",
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    _up(commands)
    _down(commands)
    status = commands.add_parser("status", help="show every part: state, process, restarts, memory, address")
    status.set_defaults(command="status:run")
    _doctor(commands)
    _ask(commands)
    parser_keys.add(commands)
    _audit(commands)
    _samples(commands)
    _usage(commands)
    return whole


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


def _doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="look for what is wrong: settings, ports, versions, certificates, clocks, keys",
        description="Looks for what is wrong, whether Weir is up or down. Exit status 1 where there is a fault.",
    )
    doctor.add_argument("--config", type=Path, metavar="FILE", help="settings; ./weir.yaml if it is there")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(command="doctor:run")


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


def _audit(commands: Commands[argparse.ArgumentParser]) -> None:
    audit = commands.add_parser(
        "audit",
        help="show who administered what, and a sample of what was refused",
        description="Shows the audit, newest first: administrative actions, and a sample of refused requests.",
        epilog=parser_keys.ADMINISTERS,
    )
    audit.add_argument("--since", metavar="WHEN", help=_SINCE)
    audit.add_argument("--key", default="", metavar="KEY_ID", help="only what this key did")
    audit.add_argument("--refused", action="store_true", help="only refusals")
    audit.add_argument(
        "--limit", type=positive, default=100, metavar="ROWS", help="at most so many (%(default)s)"
    )
    audit.add_argument("--json", action="store_true", help="print the rows as JSON")
    audit.set_defaults(command="audit:run")


def _samples(commands: Commands[argparse.ArgumentParser]) -> None:
    samples = commands.add_parser(
        "samples",
        help="show what was kept of the requests of keys whose sampling is on",
        epilog=parser_keys.ADMINISTERS,
    )
    samples.add_argument(
        "key_id", nargs="?", default="", metavar="KEY_ID", help="of this key; of all, unless set"
    )
    samples.add_argument(
        "--limit",
        type=positive,
        default=20,
        metavar="SAMPLES",
        help="at most so many, up to 100 (%(default)s)",
    )
    samples.add_argument("--json", action="store_true", help="print them as JSON")
    samples.set_defaults(command="samples:run")


def _usage(commands: Commands[argparse.ArgumentParser]) -> None:
    usage = commands.add_parser(
        "usage",
        help="show what was used and what it cost",
        epilog=f"{parser_keys.ADMINISTERS} A key with the scope usage:read is shown its own team.",
    )
    usage.add_argument("--since", metavar="WHEN", help=_SINCE)
    usage.set_defaults(command="usage:run")
