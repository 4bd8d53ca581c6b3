"""Provider secrets: keys, read once at the start, and tokens, read again when their file changes. Never shown."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pydantic import SecretStr

_NO_SECRET = SecretStr("")
_OTHERS = stat.S_IRGRP | stat.S_IROTH
_LONGEST_BYTES = 16 * 1024
_REMEMBERED_TOKENS = 4


@dataclass(frozen=True, slots=True)
class FoundSecret:
    """What was found; `problem` and `warning` are empty where there is none, and never hold the value."""

    secret: SecretStr = _NO_SECRET
    problem: str = ""
    """Why there is no secret."""
    warning: str = ""


class Credential(Protocol):
    """What a provider is shown."""

    def current(self) -> str:
        """The secret to send now; empty where none is needed."""

    def known(self) -> tuple[str, ...]:
        """Every value that a provider may still quote."""


class Key:
    """A secret that stays what it is."""

    def __init__(self, secret: SecretStr) -> None:
        self._secret: Final = secret

    def current(self) -> str:
        """The secret."""
        return self._secret.get_secret_value()

    def known(self) -> tuple[str, ...]:
        """The secret."""
        return (self._secret.get_secret_value(),)


class TokenFile:
    """A token that somebody else renews in a file.

    The file is looked at for each request, which costs microseconds, and read when it changed or was last read
    `reread_s` ago. A file that is gone, empty or broken at such a moment leaves the token as it was.

    Args:
        path: the file; a link is followed anew each time, so that it may point to another one.
        token: what was found in it at the start.
        reread_s: seconds after which it is read although it looks the same.
        monotonic_s: a clock in seconds that never goes back.
    """

    def __init__(
        self, path: Path, token: SecretStr, reread_s: float, monotonic_s: Callable[[], float]
    ) -> None:
        self._path = path
        self._reread_s = reread_s
        self._monotonic_s = monotonic_s
        self._recent: deque[SecretStr] = deque([token], _REMEMBERED_TOKENS)
        self._read_at_s = monotonic_s()
        self._look = self._looks()

    def current(self) -> str:
        """The token as it stands in the file now."""
        look, now_s = self._looks(), self._monotonic_s()
        if look != self._look or now_s - self._read_at_s >= self._reread_s:
            self._look, self._read_at_s = look, now_s
            self._renew()
        return self._recent[-1].get_secret_value()

    def known(self) -> tuple[str, ...]:
        """The last tokens."""
        return tuple(token.get_secret_value() for token in self._recent)

    def _looks(self) -> tuple[int, int, int] | None:
        """What changes with the file; None while it cannot be seen."""
        try:
            seen = self._path.stat()
        except OSError:
            return None
        return seen.st_ino, seen.st_mtime_ns, seen.st_size

    def _renew(self) -> None:
        found = secret_from_file(self._path, "azure_ad_token_file")
        if not found.problem and found.secret != self._recent[-1]:
            self._recent.append(found.secret)


def secret_from_file(path: Path, setting: str = "api_key_file") -> FoundSecret:
    """The file's text without white space around it. Warns where others can read the file.

    Args:
        path: the file.
        setting: what names it in the configuration, for texts.
    """
    try:
        with path.open("rb") as file:
            others = os.fstat(file.fileno()).st_mode & _OTHERS
            content = file.read(_LONGEST_BYTES)
    except OSError as error:
        return FoundSecret(problem=f"{setting} {path}: {error.strerror}")
    warning = f"{path} can be read by others: chmod 600 it" if others else ""
    found = _checked(content.decode("ascii", "replace").strip(), f"{setting} {path}")
    return FoundSecret(found.secret, found.problem, warning)


def secret_from_environment(
    name: str, environment: Mapping[str, str], setting: str = "api_key_env"
) -> FoundSecret:
    """The variable's value without white space around it."""
    value = environment.get(name)
    if value is None:
        return FoundSecret(problem=f"{setting}: {name} is not set")
    return _checked(value.strip(), f"{setting} {name}")


def _checked(value: str, source: str) -> FoundSecret:
    if not value:
        return FoundSecret(problem=f"{source} is empty")
    if not (value.isascii() and value.isprintable() and " " not in value):
        return FoundSecret(problem=f"{source} holds what no HTTP header can carry")
    return FoundSecret(SecretStr(value))
