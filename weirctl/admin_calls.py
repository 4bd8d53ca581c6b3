"""Calls that need the admin key, and what their failures mean to whoever typed the command."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gen.rpc import Metadata, Transport
from meshkit.errors import (
    Forbidden,
    KeyExpired,
    KeyInvalid,
    KeyMissing,
    KeyRevoked,
    LedgerUnavailable,
    UpstreamError,
    UpstreamTimeout,
    WeirError,
)
from meshkit.settings import ServiceName
from weirctl import admin_key
from weirctl.command_failed import CommandFailed
from weirctl.config import home_of
from weirctl.mesh_clients import NotUp, transport_to

Answer = TypeVar("Answer")
Call = Callable[[Transport, Metadata], Awaitable[Answer]]


def administer(service: ServiceName, call: Call[Answer]) -> Answer:
    """What `call` returns, given a way to `service` and the metadata with the admin key. Raises CommandFailed."""
    return asyncio.run(_administer(service, call))


async def _administer(service: ServiceName, call: Call[Answer]) -> Answer:
    home = home_of(os.environ)
    try:
        async with transport_to(service, home) as transport:
            key = admin_key.find(home, os.environ)
            try:
                return await call(transport, key.metadata)
            except WeirError as error:
                raise CommandFailed(explained(error, service, key.source)) from error
    except (NotUp, admin_key.NoAdminKey) as error:
        raise CommandFailed(str(error)) from error


def explained(error: WeirError, service: str, source: str) -> str:
    """The error of `service` in words, and what to do about it; `source` is where the key that was sent came from."""
    match error:
        case KeyInvalid() | KeyExpired() | KeyRevoked() | KeyMissing():
            return f"{error.message} (sent: the admin key of {source}). {_mended(source)}"
        case Forbidden():
            return (
                f"{error.message} (sent: the key of {source}). Set {admin_key.VARIABLE} to a key that has it"
            )
        case UpstreamError() | UpstreamTimeout() | LedgerUnavailable():
            return f"{service} cannot answer now: {error.message}. `weir status` shows the parts"
        case _:
            named = not error.param or error.param in error.message
            return error.message if named else f"{error.param}: {error.message}"


def _mended(source: str) -> str:
    if source == admin_key.VARIABLE:
        return (
            f"Set {admin_key.VARIABLE} to a good one, or unset it to use the one that Auth made for this home"
        )
    return (
        f"Set {admin_key.VARIABLE} to one that is good; where none is left, remove {source} and start Weir again: "
        f"Auth then makes one"
    )
