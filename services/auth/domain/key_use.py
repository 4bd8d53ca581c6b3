"""Whether a key may be used: with this secret, now, from there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hmac import compare_digest

from gen.weir.auth.v1 import Key
from meshkit.errors import Forbidden, KeyExpired, KeyRevoked
from meshkit.networks import Networks


def is_opened_by(key: Key, secret_sha256: bytes, now: datetime) -> bool:
    """Whether this is the digest of the key's secret, or of its former one while a rotation overlaps."""
    present = compare_digest(key.secret_sha256, secret_sha256)
    overlaps = key.previous_until is not None and now < key.previous_until
    former = overlaps and bool(key.previous_sha256) and compare_digest(key.previous_sha256, secret_sha256)
    return bool(key.secret_sha256) and (present or former)


def check_alive(key: Key, now: datetime) -> None:
    """Raises KeyRevoked or KeyExpired; only for one who has the secret."""
    if key.revoked_at is not None:
        raise KeyRevoked("the key was revoked")
    if key.expires_at is not None and key.expires_at <= now:
        raise KeyExpired("the key has expired")


def check_network(networks: Sequence[str], address: str) -> None:
    """Raises Forbidden where there are networks and the address lies in none of them, unknown or malformed ones too.

    An IPv4 address that comes as IPv6 (`::ffff:10.0.0.1`) is the IPv4 address.
    """
    if networks and not Networks(networks).have(address):
        raise Forbidden("the key may not be used from this address")
