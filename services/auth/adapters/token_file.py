"""A file with one key's token, for its owner's eyes alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


class SecretTokenFile:
    """TokenFile at a path; its folder is made where it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str | None:
        """The token, whatever it looks like; None if there is no file."""
        try:
            return self._path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return None

    def write(self, token: str) -> None:
        """Makes the file with mode 0600: on disk before it has its name, so that nobody reads half of it."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}-")
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{token}\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, self._path)  # unlike a rename it does not replace what is there
        finally:
            Path(draft).unlink()
