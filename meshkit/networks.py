"""Where calls come from, and the networks that a key may be used from."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import unquote

MAX_HOST_CHARS: Final = 64


def host_of(peer: str) -> str:
    """The host in gRPC's name of a peer: `ipv4:127.0.0.1:80`, `ipv6:%5B::1%5D:80`; empty for a Unix socket."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return ""
    return rest.rpartition(":")[0].strip("[]")[:MAX_HOST_CHARS]


class Networks:
    """CIDR blocks, compiled once.

    An IPv4 address that comes as IPv6 (`::ffff:10.0.0.1`) is the IPv4 address.
    Raises ValueError for text that is no network.
    """

    __slots__ = ("_networks",)

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = tuple(ip_network(network) for network in networks)

    def have(self, address: str) -> bool:
        """Whether this address lies in one of them; an unknown or malformed address lies in none."""
        try:
            place = ip_address(address)
        except ValueError:
            return False
        if isinstance(place, IPv6Address) and place.ipv4_mapped is not None:
            place = place.ipv4_mapped
        return any(place in network for network in self._networks)
