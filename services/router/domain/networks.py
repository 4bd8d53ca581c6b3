"""The networks that a key may be used from."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


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
            parsed = _plain(ip_address(address))
        except ValueError:
            return False
        return any(parsed.version == network.version and parsed in network for network in self._networks)


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
