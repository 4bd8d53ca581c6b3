"""`weir keys`: API keys of the running mesh."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gen.weir.auth.v1 import CreateKeyRequest, CreateKeyResponse, Key
from gen.weir.auth.v1.service import AuthClient
from gen.weir.type.v1 import Principal
from meshkit.errors import WeirError
from weirctl.config import home_of
from weirctl.mesh_clients import NotUp, transport_to

_LIMIT = timedelta(seconds=10)
_FAILED, _WRONG_USE = 1, 2


def create(arguments: argparse.Namespace) -> int:
    """Prints the new key's token, alone on standard output."""
    try:
        expires_at = _in_days(arguments.expires_days)
    except (OverflowError, ValueError):
        sys.stderr.write(f"--expires-days {arguments.expires_days:g}: no date is so far away\n")
        return _WRONG_USE
    request = CreateKeyRequest(
        org=arguments.org,
        team=arguments.team,
        label=arguments.label,
        expires_at=expires_at,
        models=arguments.models,
        targets=arguments.targets,
    )
    try:
        answer = asyncio.run(_create(home_of(os.environ), request))
    except (NotUp, WeirError) as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    sys.stderr.write(f"{_described(answer)} The token is shown this once:\n")
    print(answer.token)
    return 0


def _in_days(days: float | None) -> datetime | None:
    """None for never. Raises OverflowError or ValueError for what no calendar has."""
    return None if days is None else datetime.now(UTC) + timedelta(days=days)


def _described(answer: CreateKeyResponse) -> str:
    """What was made, as Auth keeps it."""
    key = Key() if answer.key is None else answer.key
    principal = Principal() if key.principal is None else key.principal
    end = "never" if key.expires_at is None else key.expires_at.isoformat(timespec="seconds")
    models, targets = (" ".join(patterns) or "all" for patterns in (key.models, key.targets))
    return f"Key for {principal.org}/{principal.team}, expires: {end}, models: {models}, targets: {targets}."


async def _create(home: Path, request: CreateKeyRequest) -> CreateKeyResponse:
    async with transport_to("auth", home) as transport:
        return await AuthClient(transport).create_key(request, timeout=_LIMIT)
