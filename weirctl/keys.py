"""`weir keys`: API keys of the running mesh."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from gen.rpc import Metadata, Transport
from gen.weir.auth.v1 import (
    CreateKeyRequest,
    GetKeyRequest,
    Key,
    Limits,
    ListKeysRequest,
    RevokeKeyRequest,
    RotateKeyRequest,
    SetKeySamplingRequest,
)
from gen.weir.auth.v1.service import AuthClient
from meshkit.scopes import scope_of
from weirctl import admin_key, key_view, pages, spans
from weirctl.admin_calls import administer
from weirctl.command_failed import WRONG_USE, CommandFailed
from weirctl.config import home_of

_LIMIT = timedelta(seconds=10)
_LIMIT_NAMES = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "context_tokens")
_YES = frozenset({"y", "yes"})
Answer = TypeVar("Answer")


def create(arguments: argparse.Namespace) -> int:
    """Prints the new key's token, alone on standard output."""
    request = _new(arguments)
    answer = _ask(lambda auth, key: auth.create_key(request, timeout=_LIMIT, metadata=key))
    _say(f"{_page(answer.key)}\nThe token is shown this once:")
    print(answer.token)
    return 0


def list_keys(arguments: argparse.Namespace) -> int:
    """Prints the table, newest first."""

    async def ask(auth: AuthClient, key: Metadata) -> Sequence[Key]:
        async def page(size: int, token: str) -> tuple[Sequence[Key], str]:
            request = ListKeysRequest(
                org=arguments.org, team=arguments.team, ended=arguments.all, page_size=size, page_token=token
            )
            answer = await auth.list_keys(request, timeout=_LIMIT, metadata=key)
            return answer.keys, answer.next_page_token

        return await pages.up_to(arguments.limit, page)

    found = _ask(ask)
    if arguments.json:
        print(_json([key_view.document(key, _now()) for key in found]))
    else:
        print(key_view.listed(found, _now()) if found else "No keys.")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Prints every field."""
    key = _get(arguments.key_id)
    print(_json(key_view.document(key, _now())) if arguments.json else _page(key))
    return 0


def rotate(arguments: argparse.Namespace) -> int:
    """Prints the new token, alone on standard output."""
    overlap = _read(spans.span, arguments.overlap, "--overlap")
    request = RotateKeyRequest(key_id=arguments.key_id, overlap=overlap)
    answer = _ask(lambda auth, key: auth.rotate_key(request, timeout=_LIMIT, metadata=key))
    until = None if answer.key is None else answer.key.previous_until
    former = "ended" if not overlap else f"is good until {spans.shown(until)}"
    _say(f"Key {arguments.key_id} has a new secret; the former one {former}.")
    _keep_own(arguments.key_id, answer.token)
    _say("The token is shown this once:")
    print(answer.token)
    return 0


def revoke(arguments: argparse.Namespace) -> int:
    """Ends the key, once a human at the terminal or --yes says so."""
    if not arguments.yes:
        key = _get(arguments.key_id)
        own = " It is the admin key of this home." if _is_own(key.id) else ""
        _confirm(f"End key {key.id} of {key_view.holder(key)} ({_label(key)}) at once and for ever?{own}")
    request = RevokeKeyRequest(key_id=arguments.key_id)
    answer = _ask(lambda auth, key: auth.revoke_key(request, timeout=_LIMIT, metadata=key))
    at = None if answer.key is None else answer.key.revoked_at
    print(f"Key {arguments.key_id} is revoked since {spans.shown(at)}.")
    return 0


def sample(arguments: argparse.Namespace) -> int:
    """Switches sampling on or off; on, it says what that means."""
    share = _read(spans.share, arguments.share, "SHARE")
    request = SetKeySamplingRequest(key_id=arguments.key_id, share=share)
    _ask(lambda auth, key: auth.set_key_sampling(request, timeout=_LIMIT, metadata=key))
    if share:
        _say(
            f"warning: from now on {spans.percent(share)} of the requests of key {arguments.key_id} are STORED, "
            f"with the text of their prompts and answers. Tell those who use it.\n"
            f"`weir samples {arguments.key_id}` shows them, `weir keys sample {arguments.key_id} off` ends it."
        )
    else:
        print(f"Nothing of the requests of key {arguments.key_id} is kept from now on.")
    return 0


def _new(arguments: argparse.Namespace) -> CreateKeyRequest:
    limits = {name: getattr(arguments, name) or 0 for name in _LIMIT_NAMES}
    return CreateKeyRequest(
        org=arguments.org,
        team=arguments.team,
        label=arguments.label,
        owner=arguments.owner,
        labels=dict(_read(_pair, text, "--set-label") for text in arguments.labels),
        expires_at=_in_days(arguments.expires_days),
        models=arguments.models,
        targets=arguments.targets,
        networks=arguments.networks,
        scopes=[_read(scope_of, name, "--scope") for name in arguments.scopes],
        limits=Limits(**limits) if any(limits.values()) else None,
    )


def _in_days(days: float | None) -> datetime | None:
    """None for never."""
    try:
        return None if days is None else _now() + timedelta(days=days)
    except (OverflowError, ValueError):
        raise CommandFailed(f"--expires-days {days:g}: no date is so far away", WRONG_USE) from None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"{text!r}: write NAME=VALUE")
    return name, value


def _read(reader: Callable[[str], Answer], text: str, option: str) -> Answer:
    try:
        return reader(text)
    except ValueError as error:
        raise CommandFailed(f"{option}: {error}", WRONG_USE) from None


def _get(key_id: str) -> Key:
    request = GetKeyRequest(key_id=key_id)
    answer = _ask(lambda auth, key: auth.get_key(request, timeout=_LIMIT, metadata=key))
    return Key(id=key_id) if answer.key is None else answer.key


def _confirm(question: str) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandFailed(f"{question} Say so with --yes", WRONG_USE)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in _YES:
        raise CommandFailed("Nothing was changed.")


def _ask(call: Callable[[AuthClient, Metadata], Awaitable[Answer]]) -> Answer:
    async def with_client(transport: Transport, metadata: Metadata) -> Answer:
        return await call(AuthClient(transport), metadata)

    return administer("auth", with_client)


def _is_own(key_id: str) -> bool:
    own = admin_key.of_home(home_of(os.environ))
    return own is not None and own.key_id == key_id


def _keep_own(key_id: str, token: str) -> None:
    """The home's admin key must not be left with its former secret."""
    if not _is_own(key_id):
        return
    path = admin_key.path_in(home_of(os.environ))
    try:
        admin_key.replace(path.parent, token)
    except OSError as error:
        _say(f"warning: {path} keeps the former secret ({error.strerror}): write the token below into it")
    else:
        _say(f"It is the admin key of this home: {path} has the new one.")


def _label(key: Key) -> str:
    return key.label or "no label"


def _page(key: Key | None) -> str:
    return key_view.page(Key() if key is None else key, _now())


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _json(document: object) -> str:
    return msgspec.json.format(msgspec.json.encode(document)).decode()


def _now() -> datetime:
    return datetime.now(UTC)
