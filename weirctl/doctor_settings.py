"""What the doctor reads from the settings alone."""

from __future__ import annotations

import ipaddress

from edge.settings import EdgeSettings
from meshkit.identity import TransportName
from weirctl.doctor_finding import Finding, fault, ok, warning

_TELLING = frozenset({"trace", "debug"})


def settings(name: str, faults: str) -> list[Finding]:
    """`faults` as SettingsError says them: each on a line of its own; empty where the file can be used."""
    if not faults:
        return [ok("settings", f"{name} can be used")]
    return [fault("settings", line, "correct it; `weir up` would not start") for line in faults.splitlines()]


def transport(name: TransportName) -> Finding:
    """Whether the services know who calls them."""
    if name == "loopback":
        return warning(
            "transport",
            "loopback proves nothing about who calls: every program of this machine reaches every service",
            "set transport: mtls (or uds) in weir.yaml",
        )
    return ok("transport", f"{name}: the services know who calls them")


def edge_reach(edge: EdgeSettings) -> Finding:
    """Whether keys cross a network in clear text."""
    if _is_loopback(edge.host):
        return ok("edge", f"it listens on {edge.host}, which this machine alone reaches")
    return warning(
        "edge",
        f"it listens on {edge.host} without TLS: keys and prompts cross the network in clear text",
        "put TLS before it and set edge.host to 127.0.0.1, or see that the network is your own",
    )


def edge_log(edge: EdgeSettings) -> Finding:
    """Whether the edge's log shows keys."""
    if edge.log_level in _TELLING:
        return warning(
            "edge log",
            f"level {edge.log_level} writes headers, so API keys, to log/edge.log",
            "set edge.log_level to warning, remove that log, and rotate the keys that were used meanwhile",
        )
    return ok("edge log", f"level {edge.log_level} shows no keys")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
