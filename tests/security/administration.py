"""Administrative calls to the running mesh, with the operator's certificate and any key."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from betterproto2 import Message

from gen.rpc import Method
from gen.weir.auth.v1 import CreateKeyRequest, RevokeKeyRequest, RotateKeyRequest, Scope
from gen.weir.auth.v1.service import CREATE_KEY, REVOKE_KEY, ROTATE_KEY
from meshkit.settings import ServiceName
from meshkit.tokens import mint
from tests.harness.stronghold import Stronghold
from weirctl import admin_key
from weirctl.mesh_clients import transport_to

LIMIT = timedelta(seconds=20)
ORG, WEST, EAST = "castle", "west", "east"
"""An org of these tests' own, and two teams of it."""


@dataclass(frozen=True)
class Desk:
    """Where a mesh is administered."""

    stronghold: Stronghold

    @property
    def admin(self) -> str:
        """The token of the key that Auth made at its start."""
        found = admin_key.find(self.stronghold.weir.home, {})
        return found.token

    def ask(
        self, method: Method, request: Message, authorization: str | None, service: ServiceName = "auth"
    ) -> Any:
        """What the RPC answers. Raises the noun of its error."""
        return asyncio.run(self._ask(method, request, authorization, service))

    async def _ask(
        self, method: Method, request: Message, authorization: str | None, service: ServiceName
    ) -> Any:
        metadata = () if authorization is None else (("authorization", authorization),)
        async with transport_to(service, self.stronghold.weir.home) as transport:
            if method.server_streaming:
                answers = transport.unary_stream(method, request, timeout=LIMIT, metadata=metadata)
                return [answer async for answer in answers]
            return await transport.unary_unary(method, request, timeout=LIMIT, metadata=metadata)

    def make(self, *scopes: Scope, org: str = ORG, team: str = WEST, **fields: Any) -> str:
        """A new key's token."""
        request = CreateKeyRequest(org=org, team=team, scopes=list(scopes), **fields)
        token: str = self.ask(CREATE_KEY, request, bearer(self.admin)).token
        return token

    def revoke(self, token: str) -> None:
        """Returns when Auth has said so, and not later."""
        self.ask(REVOKE_KEY, RevokeKeyRequest(key_id=id_of(token)), bearer(self.admin))

    def rotate(self, token: str, overlap: timedelta = timedelta()) -> str:
        """The key's new token."""
        request = RotateKeyRequest(key_id=id_of(token), overlap=overlap)
        rotated: str = self.ask(ROTATE_KEY, request, bearer(self.admin)).token
        return rotated

    def state(self) -> list[tuple[Any, ...]]:
        """All that administrative RPCs alter, but for the audit."""
        with self.stronghold.database() as connection:
            return connection.execute("SELECT k::text FROM auth.key k ORDER BY id").fetchall()


def bearer(token: str) -> str:
    """The Authorization header's value."""
    return f"Bearer {token}"


def id_of(token: str) -> str:
    """The public part."""
    return token.split("_")[1]


def stolen(token: str) -> str:
    """Another secret under the id of a key, checksum and all."""
    return mint(os.urandom, id_of(token)).text


def unknown() -> str:
    """A well-formed key that nobody made."""
    return mint(os.urandom).text
