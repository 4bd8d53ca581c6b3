"""The key that the first `weir up` makes, so that the first request needs no further step."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from gen.weir.auth.v1 import AuthenticateRequest, CreateKeyRequest
from gen.weir.auth.v1.service import AuthClient
from meshkit.errors import KeyExpired, KeyInvalid, KeyMissing, KeyRevoked
from meshkit.tokens import parse
from weirctl import admin_key

_NAME = "demo-key"
_ORG = "demo"
_LIMIT = timedelta(seconds=5)


def read(home: Path) -> str | None:
    """The token; None if there is none."""
    with contextlib.suppress(OSError):
        return (home / _NAME).read_text(encoding="ascii").strip() or None
    return None


async def ensure(home: Path, auth: AuthClient, environment: Mapping[str, str]) -> str:
    """The token of a key that Auth knows: the one kept, or a new one in its place, made with the admin key.

    The home's own admin key comes first: what WEIR_ADMIN_KEY holds may be for another Weir.
    Raises WeirError, NoAdminKey.
    """
    token = read(home)
    if token is not None and await _authenticates(token, auth):
        return token
    request = CreateKeyRequest(org=_ORG, team=_ORG, label="made by weir up")
    admin = admin_key.of_home(home) or admin_key.find(home, environment)
    token = (await auth.create_key(request, timeout=_LIMIT, metadata=admin.metadata)).token
    _write(home / _NAME, token)
    return token


async def _authenticates(text: str, auth: AuthClient) -> bool:
    try:
        token = parse(text)
        request = AuthenticateRequest(key_id=token.key_id, secret_sha256=token.secret_sha256)
        await auth.authenticate(request, timeout=_LIMIT)
    except (KeyInvalid, KeyExpired, KeyMissing, KeyRevoked):
        return False
    return True


def _write(path: Path, token: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{token}\n")
