"""From a good token's claims to the key that its holder uses."""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from gen.weir.auth.v1 import Key, Scope
from gen.weir.type.v1 import Principal
from meshkit.errors import Forbidden, KeyInvalid
from meshkit.scopes import scope_of
from services.auth.jwt.claims import Holder
from services.auth.jwt.settings import Claim, IssuerSettings, ScopeMap

KEY_PREFIX: Final = "jwt_"
MAX_NAME_CHARS: Final = 100

_HASH_CHARS: Final = 20  # of base32: 100 bits
_WHOLE_NAME: Final = frozenset("/:")


class Grants:
    """What the configuration gives to the holders of one issuer's tokens.

    Args:
        name: the issuer's, in the configuration.
    """

    def __init__(self, name: str, settings: IssuerSettings) -> None:
        self._name = name
        self._settings = settings
        scopes = settings.scopes
        self._by_value = scopes.by_value if isinstance(scopes, ScopeMap) else {}

    def key_of(self, holder: Holder, claims: Mapping[str, Any]) -> Key:
        """The holder's key; the same for the same claims.

        Raises KeyInvalid where a claim that the configuration needs is missing or odd, Forbidden where there is no
        scope for the holder: we know who it is, and it may do nothing.
        """
        settings = self._settings
        key_id = key_id_of(self._name, holder.subject)
        return Key(
            id=key_id,
            principal=Principal(
                key_id=key_id, org=_org(settings.org, claims), team=_text(settings.team, claims)
            ),
            label=self._name,
            created_at=holder.issued_at,
            expires_at=holder.expires_at,
            models=list(settings.models),
            targets=list(settings.targets),
            owner=_owner(settings.owner, claims),
            scopes=self._scopes(claims),
        )

    def _scopes(self, claims: Mapping[str, Any]) -> list[Scope]:
        scopes = self._settings.scopes
        if not isinstance(scopes, ScopeMap):
            return sorted(set(map(scope_of, scopes)))
        granted = {
            scope for value in _listed(scopes.claim, claims) for scope in self._by_value.get(value, ())
        }
        if not granted:
            raise Forbidden(f"nothing in the token's claim {scopes.claim} gives it a scope here")
        return sorted(granted)


def key_id_of(issuer_name: str, subject: str) -> str:
    """`jwt_` and 20 characters of `a-z2-7`: always the same for one subject of one issuer."""
    # Neither may hold a NUL, so no other pair makes the same bytes.
    digest = sha256(f"{issuer_name}\0{subject}".encode()).digest()
    return KEY_PREFIX + b32encode(digest).decode("ascii")[:_HASH_CHARS].lower()


def value_at(path: str, claims: Mapping[str, Any]) -> object:
    """The claim at a path (settings.Claim.claim); None where there is none."""
    value: Any = claims
    for name in (path,) if _WHOLE_NAME.intersection(path) else path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _org(org: str | Claim, claims: Mapping[str, Any]) -> str:
    name = _text(org, claims)
    if isinstance(org, Claim) and "/" in name:
        # A team is known as `<org>/<team>`: "a/b" and "c" would be one with "a" and "b/c".
        raise KeyInvalid(f"the token's claim {org.claim} has a slash, which no org has")
    return name


def _owner(owner: str | Claim, claims: Mapping[str, Any]) -> str:
    """Told to people and nothing else, so a long one is cut."""
    if isinstance(owner, str):
        return owner
    name = value_at(owner.claim, claims)
    return _plain(owner.claim, name[:MAX_NAME_CHARS].strip() if isinstance(name, str) else name)


def _text(setting: str | Claim, claims: Mapping[str, Any]) -> str:
    if isinstance(setting, str):
        return setting
    return _plain(setting.claim, value_at(setting.claim, claims))


def _plain(path: str, value: object) -> str:
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= MAX_NAME_CHARS
        or value != value.strip()
        or not value.isprintable()
    ):
        raise KeyInvalid(f"the token's claim {path} is no text of 1 to {MAX_NAME_CHARS} printable characters")
    return value


def _listed(path: str, claims: Mapping[str, Any]) -> list[str]:
    value = value_at(path, claims)
    words = value.split(" ") if isinstance(value, str) else [] if value is None else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise KeyInvalid(f"the token's claim {path} is neither a text nor a list of texts")
    return words
