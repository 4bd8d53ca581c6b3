"""Scopes as people write them: `chat`, `embed`, `usage:read`, `keys:write`, `admin`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from gen.weir.auth.v1 import Scope
from meshkit.errors import Forbidden

USUAL: Final = frozenset({Scope.CHAT, Scope.EMBED})
"""What a key may do of which nobody said more."""

_BY_NAME: Final[Mapping[str, Scope]] = MappingProxyType(
    {scope.name.lower().replace("_", ":"): scope for scope in Scope if scope.name and scope.value}
)
_NAMES: Final = MappingProxyType({scope: name for name, scope in _BY_NAME.items()})

NAMES: Final = tuple(_BY_NAME)
"""Every scope's name, in the order of the contract."""


def scope_of(name: str) -> Scope:
    """The scope of this name. Raises ValueError naming those that there are."""
    scope = _BY_NAME.get(name)
    if scope is None:
        raise ValueError(f"no scope {name!r} (scopes: {', '.join(NAMES)})")
    return scope


def name_of(scope: Scope) -> str:
    """The scope's name; a number in text for one that a newer release made."""
    return _NAMES.get(scope, str(int(scope)))


def scopes_of(written: Sequence[Scope]) -> frozenset[Scope]:
    """What a key's field `scopes` means: chat and embed where it says nothing."""
    return frozenset(written) or USUAL


def need(held: Iterable[Scope], *any_of: Scope) -> None:
    """Raises Forbidden, naming the scopes of which one is needed, where none of them is held."""
    if not any(scope in held for scope in any_of):
        names = " or ".join(name_of(scope) for scope in any_of)
        raise Forbidden(f"the key lacks the scope {names}")
