"""Where a request comes from."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from gen.rpc import Peer

EDGE = "edge"
EXTERNAL_ADDRESS = "x-envoy-external-address"
"""The client's address as the edge saw it, or as `edge.trusted_hops` proxies before it say. The edge drops what a
client sends under this name."""
_MAX_CHARS = 64


def client_address(peer: Peer, metadata: Mapping[str, str | bytes]) -> str:
    """The client's address without a port; empty where it is not known.

    Only the edge may say whose request it brings. Where the transport does not tell who calls (`loopback`, `uds`),
    everybody on this machine could be the edge, and is believed.
    """
    if peer.service in {"", EDGE}:
        told = metadata.get(EXTERNAL_ADDRESS)
        if isinstance(told, str) and told:
            return told[:_MAX_CHARS]
    return _host(peer.address)


def _host(address: str) -> str:
    """The host in gRPC's name of a peer: `ipv4:127.0.0.1:80`, `ipv6:%5B::1%5D:80`, `unix:`."""
    kind, _, rest = unquote(address).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return ""
    return rest.rpartition(":")[0].strip("[]")[:_MAX_CHARS]
