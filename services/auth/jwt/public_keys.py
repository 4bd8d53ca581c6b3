"""An issuer's published keys: a JWK set, and the signatures that they verify."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError, get_algorithm_by_name

from services.auth.jwt.compact import ALGORITHMS, MAX_KID_CHARS, Compact
from services.auth.jwt.strict_json import json_object

MAX_KEYS: Final = 100
"""Of one issuer; more are a fault of the document."""
MIN_RSA_BITS: Final = 2_048
MAX_RSA_BITS: Final = 8_192
"""A longer key makes each verification as dear as its publisher likes."""
LEAKED: Final = "it is private or symmetric"
"""Why a key is left out that should never have been published."""

_MAX_RSA_EXPONENT: Final = 2**32
_BY_TYPE: Final[Mapping[tuple[object, object], str]] = {
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}
"""A key's type and curve decide the algorithm; neither the key's own `alg` nor a token's can choose another."""
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The usable keys of a JWK set."""

    keys: Mapping[str, Mapping[str, PublicKey]]
    """By `kid`, then by algorithm."""
    unusable: Mapping[str, int]
    """Why others were left out, and how many."""

    def find(self, token: Compact) -> PublicKey | None:
        """The key that a token names, if it is one for the token's algorithm."""
        return self.keys.get(token.kid, {}).get(token.alg)


def read_jwks(data: bytes) -> KeyRing:
    """The usable keys of a JWK set (RFC 7517); perhaps none.

    Raises ValueError, in words that repeat nothing of it, where it is no such document at all.
    """
    try:
        listed = json_object(data).get("keys")
    except ValueError as error:
        raise ValueError("it is no JSON object") from error
    if not isinstance(listed, list) or not all(isinstance(jwk, dict) for jwk in listed):
        raise ValueError("it has no list of keys")
    if len(listed) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    keys: dict[str, dict[str, PublicKey]] = {}
    unusable: Counter[str] = Counter()
    for jwk in listed:
        try:
            alg = _algorithm(jwk)
            key = _public_key(jwk, alg)
            if keys.setdefault(jwk["kid"], {}).setdefault(alg, key) is not key:
                raise ValueError("its kid is another key's")  # noqa: TRY301 - counted like the other reasons
        except ValueError as error:
            unusable[str(error)] += 1
    return KeyRing(keys, unusable)


def verified(token: Compact, key: PublicKey) -> bool:
    """Whether the token was signed by the holder of the key, which is one for its algorithm."""
    return get_algorithm_by_name(token.alg).verify(token.signed, key, token.signature)


def _algorithm(jwk: Mapping[str, Any]) -> str:
    """The algorithm that the key is for. Raises ValueError saying why it is for none of ours."""
    kid, kind, curve = jwk.get("kid"), jwk.get("kty"), jwk.get("crv")
    if not isinstance(kid, str) or not 1 <= len(kid) <= MAX_KID_CHARS:
        raise ValueError("it has no kid")
    if not _PRIVATE.isdisjoint(jwk):
        raise ValueError(LEAKED)
    if jwk.get("use", "sig") != "sig" or not _may_verify(jwk.get("key_ops", ["verify"])):
        raise ValueError("it is not for signatures")
    alg = _BY_TYPE.get((kind, curve)) if isinstance(kind, str) and isinstance(curve, str | None) else None
    if alg is None or jwk.get("alg", alg) != alg:
        raise ValueError(f"it is for none of {', '.join(ALGORITHMS)}")
    return alg


def _may_verify(key_ops: object) -> bool:
    return isinstance(key_ops, list) and "verify" in key_ops


def _public_key(jwk: Mapping[str, Any], alg: str) -> PublicKey:
    try:
        key = PyJWK(dict(jwk), alg).key
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError("its numbers are not valid") from error
    if not isinstance(key, PublicKey):
        raise ValueError(LEAKED)  # noqa: TRY004 - counted like the other reasons
    if isinstance(key, RSAPublicKey) and not _is_sound(key):
        raise ValueError(
            f"it is an RSA key outside {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, or its exponent is unusual"
        )
    return key


def _is_sound(key: RSAPublicKey) -> bool:
    return MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS and key.public_numbers().e <= _MAX_RSA_EXPONENT
