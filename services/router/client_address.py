"""Where a request comes from."""

from __future__ import annotations

from collections.abc import Mapping

from gen.rpc import Peer
from meshkit.networks import MAX_HOST_CHARS, host_of

EDGE = "edge"
EXTERNAL_ADDRESS = "x-envoy-external-address"
"""The client's address as the edge saw it, or as `edge.trusted_hops` proxies before it say. The edge drops what a
client sends under this name."""


def client_address(peer: Peer, metadata: Mapping[str, str | bytes]) -> str:
    """The client's address without a port; empty where it is not known.

    Only the edge may say whose request it brings. Where the transport does not tell who calls (`loopback`, `uds`),
    everybody on this machine could be the edge, and is believed.
    """
    if peer.service in {"", EDGE}:
        told = metadata.get(EXTERNAL_ADDRESS)
        if isinstance(told, str) and told:
            return told[:MAX_HOST_CHARS]
    return host_of(peer.address)
