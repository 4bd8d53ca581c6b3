"""What may be typed after `weir keys`."""

from __future__ import annotations

import argparse

from weirctl.option_types import positive

Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it

ADMINISTERS = "Needs an admin key: WEIR_ADMIN_KEY, or the one that Auth made in WEIR_HOME/admin-key."
SCOPES = "chat, embed, usage:read, keys:write, admin"
"""As meshkit.scopes names them, which would import too much here."""
_EXAMPLES = """\
examples:
  weir keys create --org acme --team search --model 'gpt-*' --expires-days 90
  weir keys create --org acme --team ci --network 10.0.0.0/8 --requests-per-minute 60
  weir keys list --org acme
  weir keys rotate KEY_ID --overlap 24h
  weir keys revoke KEY_ID
"""
_LIMITS = (
    ("requests-per-minute", "requests within any 60 seconds"),
    ("tokens-per-minute", "tokens, of prompts and answers, within any 60 seconds"),
    ("concurrent-requests", "requests at the same time"),
    ("context-tokens", "tokens of one request, prompt and answer"),
)


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds `keys` and what belongs to it."""
    keys = commands.add_parser(
        "keys",
        help="make, list, show, rotate, revoke and sample API keys",
        description="API keys: who may ask for what, from where, how much and for how long.",
        epilog=f"{_EXAMPLES}\n{ADMINISTERS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_subparsers(required=True, metavar="COMMAND")
    _create(keys)
    _list(keys)
    _show(keys)
    _rotate(keys)
    _revoke(keys)
    _sample(keys)


def _create(keys: Commands[argparse.ArgumentParser]) -> None:
    create = keys.add_parser(
        "create",
        help="make a key; its token is shown once",
        description="Makes a key. Its token alone goes to standard output, and is never shown again.",
        epilog=ADMINISTERS,
    )
    create.add_argument("--org", required=True, help="the organisation that pays")
    create.add_argument("--team", required=True, help="the team within it")
    create.add_argument("--label", default="", help="what it is for")
    create.add_argument("--owner", default="", help="who answers for it: a person or a service")
    _again(create, "--set-label", "labels", "NAME=VALUE", "a free label")
    create.add_argument("--expires-days", type=float, metavar="DAYS", help="never, unless set")
    _again(
        create,
        "--model",
        "models",
        "GLOB",
        "models that it may ask for, as a shell pattern in quotes; all, unless set",
    )
    _again(create, "--target", "targets", "GLOB", "targets that may answer it, in the same way")
    _again(create, "--network", "networks", "CIDR", "networks that it may be used from; all, unless set")
    _again(create, "--scope", "scopes", "SCOPE", f"what it may do: {SCOPES}; chat and embed, unless set")
    for name, of in _LIMITS:
        create.add_argument(
            f"--{name}", type=positive, metavar="N", help=f"{of}; no limit of its own, unless set"
        )
    create.set_defaults(command="keys:create")


def _again(parser: argparse.ArgumentParser, option: str, dest: str, metavar: str, of: str) -> None:
    parser.add_argument(
        option, dest=dest, metavar=metavar, action="append", default=[], help=f"{of}; may be given again"
    )


def _list(keys: Commands[argparse.ArgumentParser]) -> None:
    listing = keys.add_parser("list", help="list keys, newest first", epilog=ADMINISTERS)
    listing.add_argument("--org", default="", help="only this org's")
    listing.add_argument("--team", default="", help="only this team's")
    listing.add_argument("--all", action="store_true", help="revoked and expired ones too")
    listing.add_argument(
        "--limit", type=positive, default=1_000, metavar="KEYS", help="at most so many (%(default)s)"
    )
    listing.add_argument("--json", action="store_true", help="print them as JSON, with every field")
    listing.set_defaults(command="keys:list_keys")


def _show(keys: Commands[argparse.ArgumentParser]) -> None:
    show = keys.add_parser("show", help="show every field of a key but its secret", epilog=ADMINISTERS)
    show.add_argument("key_id", metavar="KEY_ID")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    show.set_defaults(command="keys:show")


def _rotate(keys: Commands[argparse.ArgumentParser]) -> None:
    rotate = keys.add_parser(
        "rotate",
        help="give a key a new secret; the former one stays good for a while",
        description="Gives a key a new secret. The new token alone goes to standard output, and is never shown again.",
        epilog=ADMINISTERS,
    )
    rotate.add_argument("key_id", metavar="KEY_ID")
    rotate.add_argument(
        "--overlap",
        default="24h",
        metavar="SPAN",
        help="how long the former secret stays good: 30m, 24h, 7d; 0 ends it at once; at most 30d (%(default)s)",
    )
    rotate.set_defaults(command="keys:rotate")


def _revoke(keys: Commands[argparse.ArgumentParser]) -> None:
    revoke = keys.add_parser("revoke", help="end a key at once, for ever", epilog=ADMINISTERS)
    revoke.add_argument("key_id", metavar="KEY_ID")
    revoke.add_argument("--yes", action="store_true", help="do not ask")
    revoke.set_defaults(command="keys:revoke")


def _sample(keys: Commands[argparse.ArgumentParser]) -> None:
    sample = keys.add_parser(
        "sample",
        help="store a share of a key's requests, with prompts and answers; or stop that",
        description="Stores a share of a key's requests WITH THE TEXT OF THEIR PROMPTS AND ANSWERS, or stops that.",
        epilog=ADMINISTERS,
    )
    sample.add_argument("key_id", metavar="KEY_ID")
    sample.add_argument("share", metavar="SHARE", help="0.05, 5%%, or off")
    sample.set_defaults(command="keys:sample")
