"""Where a call comes from."""

from __future__ import annotations

from urllib.parse import unquote

_MAX_CHARS = 64


def host_of(peer: str) -> str:
    """The host in gRPC's name of a peer: `ipv4:127.0.0.1:80`, `ipv6:%5B::1%5D:80`; empty for a Unix socket."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return ""
    return rest.rpartition(":")[0].strip("[]")[:_MAX_CHARS]
