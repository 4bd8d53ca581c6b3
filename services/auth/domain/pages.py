"""What part of a list is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


class KeyPlace(NamedTuple):
    """Where a key stands in a list, newest first."""

    created_at: datetime
    key_id: str


@dataclass(frozen=True, slots=True)
class KeyQuery:
    """Keys, newest first."""

    most: int
    org: str = ""
    """Only of this org; empty means of all."""
    team: str = ""
    """Only of this team; empty means of all."""
    living_at: datetime | None = None
    """Only those that are neither revoked nor expired then; None means those too."""
    after: KeyPlace | None = None
    """Only those that come behind it; None means from the newest on."""


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Rows of the audit, newest first."""

    most: int
    since: datetime | None = None
    key_id: str = ""
    """Only what this key did; empty means everybody."""
    refused: bool = False
    """Only refusals."""
    below: int | None = None
    """Only ids below it; None means from the newest on."""
