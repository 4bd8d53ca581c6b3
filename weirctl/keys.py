"""`weir keys`: API keys of the running mesh."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gen.weir.auth.v1 import CreateKeyRequest, CreateKeyResponse
from gen.weir.auth.v1.service import AuthClient
from meshkit.errors import WeirError
from weirctl.config import home_of
from weirctl.mesh_clients import NotUp, transport_to

_LIMIT = timedelta(seconds=10)
_FAILED = 1


def create(arguments: argparse.Namespace) -> int:
    """Prints the new key's token, alone on standard output."""
    expires_at = None
    if arguments.expires_days is not None:
        expires_at = datetime.now(UTC) + timedelta(days=arguments.expires_days)
    request = CreateKeyRequest(
        org=arguments.org, team=arguments.team, label=arguments.label, expires_at=expires_at
    )
    try:
        answer = asyncio.run(_create(home_of(os.environ), request))
    except (NotUp, WeirError) as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    end = "never" if expires_at is None else expires_at.isoformat(timespec="seconds")
    sys.stderr.write(f"Key for {arguments.org}/{arguments.team}, expires: {end}. It is shown this once:\n")
    print(answer.token)
    return 0


async def _create(home: Path, request: CreateKeyRequest) -> CreateKeyResponse:
    async with transport_to("auth", home) as transport:
        return await AuthClient(transport).create_key(request, timeout=_LIMIT)
