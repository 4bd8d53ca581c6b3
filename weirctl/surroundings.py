"""What the parts are built from, beside the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from weirctl.postgres_server import PostgresFiles

ROOT = Path(__file__).resolve().parents[1]
"""The folder of Weir's packages."""


@dataclass(frozen=True)
class Surroundings:
    """Where and for whom the mesh starts."""

    environment: Mapping[str, str]
    """The user's own; parts get what is chosen from it."""
    directory: Path
    """Where relative paths of weir.yaml begin."""
    database: PostgresFiles | None
    """The embedded PostgreSQL; None where the user has a server."""
    sandbox: bool
    """Whether to start the sandbox cloud."""
    report: Callable[[str], None]
    """Takes a line for a human."""
