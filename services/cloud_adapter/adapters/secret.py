"""Provider secrets: read once at the start, never shown."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

_NO_SECRET = SecretStr("")
_OTHERS = stat.S_IRGRP | stat.S_IROTH
_LONGEST_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class FoundSecret:
    """What was found; `problem` and `warning` are empty where there is none, and never hold the value."""

    secret: SecretStr = _NO_SECRET
    problem: str = ""
    """Why there is no secret."""
    warning: str = ""


def secret_from_file(path: Path) -> FoundSecret:
    """The file's text without white space around it. Warns where others can read the file."""
    try:
        with path.open("rb") as file:
            others = os.fstat(file.fileno()).st_mode & _OTHERS
            content = file.read(_LONGEST_BYTES)
    except OSError as error:
        return FoundSecret(problem=f"api_key_file {path}: {error.strerror}")
    warning = f"{path} can be read by others: chmod 600 it" if others else ""
    found = _checked(content.decode("ascii", "replace").strip(), f"api_key_file {path}")
    return FoundSecret(found.secret, found.problem, warning)


def secret_from_environment(name: str, environment: Mapping[str, str]) -> FoundSecret:
    """The variable's value without white space around it."""
    value = environment.get(name)
    if value is None:
        return FoundSecret(problem=f"api_key_env: {name} is not set")
    return _checked(value.strip(), f"api_key_env {name}")


def _checked(value: str, source: str) -> FoundSecret:
    if not value:
        return FoundSecret(problem=f"{source} is empty")
    if not (value.isascii() and value.isprintable() and " " not in value):
        return FoundSecret(problem=f"{source} holds what no HTTP header can carry")
    return FoundSecret(SecretStr(value))
