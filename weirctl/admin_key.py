"""The key that the command administers with: of the environment, or the one that Auth made at its first start."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gen.rpc import Metadata
from meshkit.errors import KeyInvalid
from meshkit.tokens import parse

VARIABLE = "WEIR_ADMIN_KEY"
_NAME = "admin-key"


class NoAdminKey(Exception):
    """There is none; the text says where one is looked for."""

    def __init__(self, home: Path) -> None:
        super().__init__(
            f"no admin key: {VARIABLE} is not set, and {path_in(home)} holds none that this user can read. Auth makes "
            f"that file where no admin key lives yet; run this as the user who started Weir, or set {VARIABLE}"
        )


@dataclass(frozen=True)
class AdminKey:
    """A token and where it was found."""

    token: str = field(repr=False)
    source: str
    """In words."""

    @property
    def metadata(self) -> Metadata:
        """What a call sends."""
        return (("authorization", f"Bearer {self.token}"),)

    @property
    def key_id(self) -> str | None:
        """Its public part; None if it is no key of Weir's."""
        with contextlib.suppress(KeyInvalid):
            return parse(self.token).key_id
        return None


def path_in(home: Path) -> Path:
    """The file."""
    return home / _NAME


def find(home: Path, environment: Mapping[str, str]) -> AdminKey:
    """The key to use: the environment's before the home's. Raises NoAdminKey."""
    if token := environment.get(VARIABLE, "").strip():
        return AdminKey(token, VARIABLE)
    key = of_home(home)
    if key is None:
        raise NoAdminKey(home)
    return key


def of_home(home: Path) -> AdminKey | None:
    """The key that Auth made for this home; None if there is none."""
    path = path_in(home)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if token := path.read_text(encoding="ascii").strip():
            return AdminKey(token, str(path))
    return None


def replace(home: Path, token: str) -> None:
    """Puts a new secret in the place of the file's, as a whole, for this user alone. Raises OSError."""
    path = path_in(home)
    unfinished = path.with_name(f".{_NAME}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{token}\n")
    unfinished.replace(path)
