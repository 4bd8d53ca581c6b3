"""Who administers: a recognised key, and how it came here."""

from __future__ import annotations

from dataclasses import dataclass

from gen.weir.auth.v1 import Scope
from gen.weir.type.v1 import Principal


@dataclass(frozen=True, slots=True)
class Admin:
    """The caller of an administrative RPC, after its key was recognised."""

    principal: Principal
    scopes: frozenset[Scope]
    address: str = ""
    """Of the other end of the connection, without a port; empty where it is not known."""
    peer: str = ""
    """The service that called, where the transport tells."""
    request_id: str = ""

    @property
    def is_admin(self) -> bool:
        """Whether every org is its to administer."""
        return Scope.ADMIN in self.scopes

    def may_administer(self, principal: Principal) -> bool:
        """Whether a key of this holder is its to see and to alter."""
        mine = self.principal
        return self.is_admin or (mine.org, mine.team) == (principal.org, principal.team)
