"""Who asks for a report, and how much of it is theirs to see."""

from __future__ import annotations

from dataclasses import dataclass

from gen.weir.auth.v1 import Scope
from gen.weir.type.v1 import Principal


@dataclass(frozen=True, slots=True)
class Team:
    """All keys of one team within one org."""

    org: str
    team: str


@dataclass(frozen=True, slots=True)
class Reader:
    """Whoever asks, after the key was recognised."""

    principal: Principal
    scopes: frozenset[Scope]

    @property
    def sees(self) -> Team | None:
        """Whose entries are its to see; None means everybody's."""
        if Scope.ADMIN in self.scopes:
            return None
        return Team(self.principal.org, self.principal.team)
