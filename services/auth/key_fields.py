"""What a new key may be made of: each function checks one kind of field and gives it as it is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from gen.weir.auth.v1 import Limits, Scope
from meshkit.errors import InvalidRequest
from meshkit.scopes import NAMES

MAX_NAME_CHARS: Final = 100
MAX_LABEL_CHARS: Final = 200
MAX_LABELS: Final = 20
MAX_PATTERNS: Final = 100
MAX_PATTERN_CHARS: Final = 128
MAX_NETWORKS: Final = 50
MAX_LIMIT: Final = 10**12

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PATTERN: Final = re.compile(rf"[!-~]{{1,{MAX_PATTERN_CHARS}}}")
_LABEL_NAME: Final = re.compile(r"[a-z0-9._/-]{1,63}")
_NETWORK: Final = re.compile(r"[0-9a-fA-F.:/]{1,64}")
_IPV4_AS_IPV6: Final = IPv6Network("::ffff:0:0/96")
_USUAL: Final = (Scope.CHAT, Scope.EMBED)
_LIMITS: Final = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "context_tokens")


def name(field: str, value: str) -> str:
    """A text that must be there. Raises InvalidRequest, as every function here."""
    if not value:
        raise InvalidRequest(f"{field} is required", param=field)
    return text(field, value, MAX_NAME_CHARS)


def text(field: str, value: str, most: int) -> str:
    """A line of at most `most` characters."""
    if len(value) > most:
        raise InvalidRequest(f"{field} has {len(value)} characters; {most} are allowed", param=field)
    if value != value.strip() or not value.isprintable():
        # "acme" and "acme " would be two payers that look like one.
        raise InvalidRequest(f"{field} has spaces at an end, or control characters", param=field)
    return value


def patterns(field: str, values: Sequence[str]) -> list[str]:
    """Shell patterns of names."""
    if len(values) > MAX_PATTERNS:
        raise InvalidRequest(f"{field} has {len(values)} patterns; {MAX_PATTERNS} are allowed", param=field)
    if not all(map(_PATTERN.fullmatch, values)):
        # An empty one would match nothing, and so would a space typed by mistake: a key that is of no use.
        raise InvalidRequest(
            f"{field}: a pattern is 1 to {MAX_PATTERN_CHARS} printable ASCII characters without spaces",
            param=field,
        )
    return list(values)


def labels(values: Mapping[str, str]) -> dict[str, str]:
    """Free labels."""
    if len(values) > MAX_LABELS:
        raise InvalidRequest(f"there are {len(values)} labels; {MAX_LABELS} are allowed", param="labels")
    if not all(map(_LABEL_NAME.fullmatch, values)):
        raise InvalidRequest("labels: a name is 1 to 63 characters of a-z0-9._/-", param="labels")
    return {label: text("labels", value, MAX_LABEL_CHARS) for label, value in values.items()}


def networks(values: Sequence[str]) -> list[str]:
    """CIDR blocks in their usual spelling, each once."""
    if len(values) > MAX_NETWORKS:
        raise InvalidRequest(
            f"there are {len(values)} networks; {MAX_NETWORKS} are allowed", param="networks"
        )
    return list(dict.fromkeys(str(_network(value)) for value in values))


def _network(value: str) -> IPv4Network | IPv6Network:
    # Without this, ipaddress would take zones of IPv6 too, which say nothing on another machine.
    try:
        loose = ip_network(value, strict=False) if _NETWORK.fullmatch(value) else None
    except ValueError:
        loose = None
    if loose is None:
        raise InvalidRequest(
            "networks: one of them is no network; write it as 10.0.0.0/8 or 2001:db8::/32", param="networks"
        )
    try:
        network = ip_network(value, strict=True)
    except ValueError:
        raise InvalidRequest(
            f"networks: an address is not a network; all addresses around it are {loose}", param="networks"
        ) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_AS_IPV6):
        raise InvalidRequest("networks: write a network of IPv4 in IPv4's own form", param="networks")
    return network


def scopes(values: Sequence[Scope]) -> list[Scope]:
    """Scopes in the order of the contract, each once; those of an ordinary key where none is said."""
    if not all(value.name and value != Scope.UNSPECIFIED for value in values):
        raise InvalidRequest(f"scopes: one is not known (scopes: {', '.join(NAMES)})", param="scopes")
    return sorted(set(values or _USUAL))


def limits(value: Limits | None) -> Limits | None:
    """A key's own limits."""
    if value is None:
        return None
    for field in _LIMITS:
        if not 0 <= getattr(value, field) <= MAX_LIMIT:
            raise InvalidRequest(f"limits.{field} must be 0 to {MAX_LIMIT}", param=f"limits.{field}")
    return value


def future(moment: datetime | None, now: datetime) -> datetime | None:
    """When the key ends, in whole microseconds, which is what the store keeps: the answer is the key as stored."""
    if moment is None:
        return None
    if moment.tzinfo is None or moment <= now:
        raise InvalidRequest("expires_at must be in the future", param="expires_at")
    return _EPOCH + (moment - _EPOCH) // timedelta(microseconds=1) * timedelta(microseconds=1)
