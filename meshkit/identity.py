"""Who calls: what a connection proves of the service at its other end.

Certificates carry SPIFFE ids. Ours are `spiffe://<trust domain>/<service>`; Istio's name the service account instead,
`spiffe://<trust domain>/ns/<namespace>/sa/<account>`, and reach us as text in `x-forwarded-client-cert`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

TransportName = Literal["loopback", "uds", "mtls", "mesh"]
Peers = Literal["router", "auth", "cloud_adapter", "ledger", "edge", "operator"]

SERVICES: Final[tuple[Peers, ...]] = ("router", "auth", "cloud_adapter", "ledger", "edge", "operator")
"""All who call or are called. `operator` is the `weir` command: probes, keys, usage."""
FORWARDED: Final = "x-forwarded-client-cert"
DNS_SUFFIX: Final = ".weir"

Who = Callable[[Any], str | None]
"""The service that a gRPC server's context proves: empty where proof is owed and missing, None where none is owed."""


@dataclass(frozen=True)
class Security:
    """How a process proves who it is, and how others prove themselves to it."""

    transport: TransportName = "loopback"
    own: CertificateFiles | None = None
    """Its own certificate; with transport mtls alone."""
    trust_domain: str = ""
    namespace: str = ""
    """Of Kubernetes; with transport mesh alone."""

    @property
    def who(self) -> Who:
        """How its server knows its callers."""
        if self.transport == "mtls":
            return lambda context: from_certificate(context.auth_context(), self.trust_domain)
        if self.transport == "mesh":
            return lambda context: from_sidecar(
                context.invocation_metadata() or (), self.trust_domain, self.namespace
            )
        return lambda _: None


@dataclass(frozen=True)
class CertificateFiles:
    """Where one service's certificate lies: `tls.crt`, `tls.key`, `ca.crt`, as in a Kubernetes TLS secret."""

    directory: Path
    spiffe_id: str
    """What the certificate must say."""

    @property
    def certificate(self) -> Path:
        """The service's own, with intermediates if there are any; PEM."""
        return self.directory / "tls.crt"

    @property
    def key(self) -> Path:
        """PEM, without a password."""
        return self.directory / "tls.key"

    @property
    def authorities(self) -> Path:
        """Who may vouch for others; PEM."""
        return self.directory / "ca.crt"


@dataclass(frozen=True)
class Towards:
    """How a client proves itself to a server, and knows it."""

    own: CertificateFiles
    """The client's."""
    server: str
    """The service whose certificate the server must have."""


def spiffe_id(trust_domain: str, service: str) -> str:
    """The id in a service's certificate."""
    return f"spiffe://{trust_domain}/{service}"


def dns_name(service: str) -> str:
    """The name by which a client knows the server's certificate."""
    return f"{service}{DNS_SUFFIX}"


def from_certificate(auth_context: Mapping[str, Any], trust_domain: str) -> str:
    """The service that a verified client certificate names; empty if it is not one of ours.

    gRPC gives `peer_spiffe_id` only where the certificate has exactly one URI, and that is a SPIFFE id.
    """
    ids = list(auth_context.get("peer_spiffe_id", ()))
    head, _, service = ids[0].decode(errors="replace").rpartition("/") if len(ids) == 1 else ("", "", "")
    return service if head == f"spiffe://{trust_domain}" and service in SERVICES else ""


def from_sidecar(metadata: Any, trust_domain: str, namespace: str) -> str:
    """The service whose account the sidecar's header names; empty if there is none or it is not one of ours."""
    values = [value for name, value in metadata if name == FORWARDED]
    if not values or not all(isinstance(value, str) for value in values):
        return ""
    head, _, account = forwarded_uri(values[-1]).rpartition("/")
    if head != f"spiffe://{trust_domain}/ns/{namespace}/sa":
        return ""
    # Kubernetes' names know no underscore.
    service = account.replace("-", "_")
    return service if service in SERVICES and "_" not in account else ""


def forwarded_uri(header: str) -> str:
    """The URI in the last element of `x-forwarded-client-cert`; empty if it has none, several, or is malformed.

    Each proxy appends an element, so the last is the nearest one's: the sidecar's, the only one that this process
    trusts. It is looked for from the end: whatever a client wrote before it, quotes among it, cannot reach into it.
    """
    element = _last(header, ",")
    uris: list[str] = []
    while element:
        pair = _last(element, ";")
        element = element[: -len(pair) - 1]
        name, _, value = pair.partition("=")
        if name.strip().lower() == "uri":
            uris.append(value)
    if len(uris) != 1:
        return ""
    value = uris[0].strip()
    bare = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return "" if '"' in bare or "\\" in bare else bare


def _last(text: str, separator: str) -> str:
    """What follows the last separator outside double quotes; all of it if there is none, nothing if a quote is open."""
    quoted = False
    for index in range(len(text) - 1, -1, -1):
        letter = text[index]
        if letter == '"' and not _escaped(text, index):
            quoted = not quoted
        elif letter == separator and not quoted:
            return text[index + 1 :]
    return "" if quoted else text


def _escaped(text: str, index: int) -> bool:
    """Whether an odd number of backslashes stands before it."""
    first = index
    while first and text[first - 1] == "\\":
        first -= 1
    return (index - first) % 2 == 1
