"""A JWT taken apart: what it says before anything of it is verified."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any, Final

from meshkit.errors import KeyInvalid
from services.auth.jwt.strict_json import json_object

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
"""Every algorithm that is ever accepted; a token only says which of them fits its issuer's key."""
MAX_KID_CHARS: Final = 256

_SHAPE: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_REFUSED_HEADERS: Final = ("jwk", "jku", "x5u", "x5c", "crit", "b64", "enc", "zip", "cty")
"""Keys or places of keys that the token brings itself, and extensions that would change what it means."""


@dataclass(frozen=True, slots=True)
class Compact:
    """A token of the right form, not verified."""

    signed: bytes = field(repr=False)
    """What the signature is of: header and payload as they came."""
    signature: bytes = field(repr=False)
    alg: str
    """One of ALGORITHMS."""
    kid: str
    claims: dict[str, Any] = field(repr=False)
    """As it says itself; nothing of them holds before the signature is verified."""


def take_apart(text: str, max_bytes: int) -> Compact:
    """The token in `text`. Raises KeyInvalid with a message that repeats nothing of it."""
    if len(text) > max_bytes:
        raise KeyInvalid(f"the token is longer than {max_bytes} bytes")
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise KeyInvalid("the token does not have the form of a signed JWT: three parts of base64url")
    header = _object(match[1], "header")
    alg, kid = _checked(header)
    signature = _decoded(match[3], "signature")
    signed = text[: match.end(2)].encode("ascii")
    return Compact(signed, signature, alg, kid, _object(match[2], "payload"))


def _checked(header: dict[str, Any]) -> tuple[str, str]:
    alg, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if alg not in ALGORITHMS:
        raise KeyInvalid(f"the token's algorithm is none of {', '.join(ALGORITHMS)}")
    for name in _REFUSED_HEADERS:
        if name in header:
            raise KeyInvalid(f"the token's header has {name}, which is not allowed here")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise KeyInvalid("the token's type is neither JWT nor at+jwt")
    if not isinstance(kid, str) or not 1 <= len(kid) <= MAX_KID_CHARS:
        raise KeyInvalid(
            f"the token's header names no key: kid must be a text of 1 to {MAX_KID_CHARS} characters"
        )
    return str(alg), kid


def _object(part: str, name: str) -> dict[str, Any]:
    data = _decoded(part, name)
    try:
        return json_object(data)
    except ValueError as error:
        raise KeyInvalid(f"the token's {name} is no JSON object with each name once") from error


def _decoded(part: str, name: str) -> bytes:
    try:
        data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        data = b""
    # Each value has one form: otherwise a changed last character could be the same token again.
    if urlsafe_b64encode(data).rstrip(b"=") != part.encode("ascii"):
        raise KeyInvalid(f"the token's {name} is not base64url")
    return data
