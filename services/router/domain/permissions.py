"""What a key may use: its patterns, compiled once, so that a request costs a look-up or one match."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import Final

from gen.weir.auth.v1 import Limits, Scope
from gen.weir.type.v1 import Principal
from meshkit.networks import Networks

MAX_NAME_CHARS: Final = 256
"""Longer names match no pattern: the asker chooses the name, and the work of matching grows with it. Names of models
and targets in the settings are at most half as long."""

_WILD: Final = frozenset("*?[")


class Permissions:
    """The models and targets that a key may use, each by shell patterns as of `fnmatch.fnmatchcase`.

    A pattern matches a whole name, upper and lower case apart. No pattern at all means everything; such a key's
    answers cost no matching.
    """

    __slots__ = ("_models", "_targets")

    def __init__(self, models: Sequence[str] = (), targets: Sequence[str] = ()) -> None:
        self._models = _compile(models)
        self._targets = _compile(targets)

    def may_use_model(self, name: str) -> bool:
        """Whether the key may ask for this model; says nothing of whether there is one."""
        return self._models is None or self._models.match(name)

    def may_use_target(self, name: str) -> bool:
        """Whether this target may answer the key."""
        return self._targets is None or self._targets.match(name)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may do and use."""

    principal: Principal
    permissions: Permissions
    scopes: frozenset[Scope] = frozenset({Scope.CHAT, Scope.EMBED})
    limits: Limits | None = None
    """The key's own; None where it has none."""
    sampling: float = 0.0
    """The share of its requests that is kept, 0 to 1."""
    networks: Networks | None = None
    """Where it may be used from; None means everywhere."""


@dataclass(frozen=True, slots=True)
class _Patterns:
    exact: frozenset[str]
    wild: re.Pattern[str] | None
    """All patterns that are more than a name, in one."""

    def match(self, name: str) -> bool:
        if name in self.exact:
            return True
        return self.wild is not None and len(name) <= MAX_NAME_CHARS and self.wild.match(name) is not None


def _compile(patterns: Sequence[str]) -> _Patterns | None:
    """None where everything is allowed."""
    if not patterns or "*" in patterns:
        return None
    wild = {pattern for pattern in patterns if not _WILD.isdisjoint(pattern)}
    joined = "|".join(map(translate, sorted(wild)))
    return _Patterns(frozenset(patterns) - wild, re.compile(joined) if joined else None)
