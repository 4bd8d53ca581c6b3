"""Settings: one YAML file for the whole mesh, of which each process reads its own keys.

`weir.yaml` has flat top-level keys. A process declares those it reads as the fields of a pydantic model derived from
`MeshSettings`; the others it ignores, and `weir up` checks the whole. Unknown keys are refused by name.
`${VAR}` and `${VAR:-default}` are replaced from the environment, see meshkit.variables; this happens in values that are
parsed already, so no variable can add keys or change the structure of the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from meshkit.identity import CertificateFiles, Peers, Security, Towards, TransportName, spiffe_id
from meshkit.settings_faults import Fault, refused
from meshkit.settings_faults import SettingsError as SettingsError  # noqa: PLC0414 - belongs to what this module offers
from meshkit.settings_file import SettingsFile, read_file

CONFIG_VARIABLE = "WEIR_CONFIG"
HOME_VARIABLE = "WEIR_HOME"
POSTGRES_VARIABLE = "WEIR_POSTGRES_DSN"
FILE_NAME = "weir.yaml"

Port = Annotated[int, Field(ge=1, le=65_535)]
ServiceName = Literal["router", "auth", "cloud_adapter", "ledger"]

TOP_LEVEL_KEYS = frozenset({
    "transport", "mtls", "mesh", "topology", "workers", "ports", "postgres_dsn", "drain_s",
    "default_model", "models", "targets", "router",
    "providers", "cloud_adapter", "auth", "ledger", "edge", "triton",
})  # fmt: skip
"""Every key that weir.yaml may have at its top."""


class Strict(BaseModel):
    """A block of settings: unknown keys refused, values never changed after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Ports(Strict):
    """TCP ports, loopback unless the edge says otherwise."""

    edge: Port = 8080
    """HTTP/JSON, gRPC and gRPC-Web for clients."""
    edge_admin: Port = 9901
    """Envoy's admin interface."""
    router: Port = 50051
    """Worker 0; worker n listens n ports above."""
    auth: Port = 50071
    cloud_adapter: Port = 50072
    ledger: Port = 50073
    metrics: Port = 9464
    """auth; cloud_adapter is one above, ledger two, router worker n ten + n."""
    triton_http: Port = 8000
    triton_grpc: Port = 8001
    triton_metrics: Port = 8002
    sandbox_cloud: Port = 8090
    """The stand-in provider of `weir up --sandbox-cloud`."""


class Mtls(Strict):
    """Transport mtls: the services' certificates."""

    certificates: Path | None = None
    """A folder with one for each of router, auth, cloud_adapter, ledger, edge and operator, each with `tls.crt`,
    `tls.key` and `ca.crt`. Absent: `tls` under WEIR_HOME."""
    made_by: Literal["weir", "others"] = "weir"
    """`weir`: `weir up` makes and renews them. `others`: they are there already, from cert-manager for example, and
    nothing is made; each names `spiffe://<trust_domain>/<service>` and, for servers, the host `<service>.weir`."""
    trust_domain: Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,255}$")] = "weir.local"
    """The first part of the SPIFFE ids in them."""
    leaf_h: Annotated[float, Field(ge=0.01, le=8_760)] = 24.0
    """Hours that a certificate made by Weir is valid; renewed when two thirds of them have passed."""


class Sidecars(Strict):
    """Transport mesh: Istio's sidecars speak TLS and name the caller."""

    trust_domain: Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,255}$")] = "cluster.local"
    """The mesh's."""
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")] = "weir"
    """Kubernetes' namespace of every service; each has a service account of its own name, with - for _."""
    hosts: dict[ServiceName, str] = Field(default_factory=dict)
    """Where a service is reached, without the port; its name unless set, with - for _, such as `cloud-adapter`."""


_LOOPBACK = "127.0.0.1"
_METRICS_OFFSET: Mapping[str, int] = {"auth": 0, "cloud_adapter": 1, "ledger": 2, "router": 10}


@dataclass(frozen=True)
class Listen:
    """Where one process listens."""

    address: str
    """`host:port` or `unix:path`."""
    metrics_host: str
    metrics_port: int
    """0 means no metrics over HTTP."""
    drain: timedelta
    """How long running calls may go on after SIGTERM."""
    security: Security = Security()
    """Who the process is, and how its callers prove who they are."""


class MeshSettings(Strict):
    """What every process of the mesh knows."""

    transport: TransportName = "mtls"
    """How services reach each other, and what proves who calls: `mtls` is TLS with certificates of both sides; `uds`
    is Unix sockets that this user alone may open; `mesh` is Istio's sidecars; `loopback` is TCP on this machine, for
    debugging, which proves nothing."""
    mtls: Mtls = Mtls()
    mesh: Sidecars = Sidecars()
    topology: Literal["separate", "compact"] = "separate"
    """One process per service, or auth, ledger and cloud_adapter inside each router process."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Router processes."""
    ports: Ports = Ports()
    postgres_dsn: str | None = None
    """libpq connection string; absent means the embedded server of `weir up` (WEIR_POSTGRES_DSN)."""
    drain_s: Annotated[float, Field(gt=0, le=3_600)] = 30.0
    """Seconds that running calls may go on after SIGTERM."""
    home: Path = Path(".weir")
    """State folder; set by WEIR_HOME, not in the file."""

    def address(self, service: ServiceName, worker: int = 0) -> str:
        """Where `service` is reached."""
        name = self._server(service)
        if self.transport == "uds":
            return f"unix:{self.sockets}/{name}-{worker}.sock"
        host = self.mesh.hosts.get(name, name.replace("_", "-")) if self.transport == "mesh" else _LOOPBACK
        return f"{host}:{getattr(self.ports, name) + worker}"

    def listen(self, service: ServiceName, worker: int = 0) -> Listen:
        """Where a process of `service` listens."""
        address = self.address(service, worker)
        if self.transport == "mesh":
            # A sidecar passes on what came for the pod's own address.
            address = f"0.0.0.0:{address.rpartition(':')[2]}"
        return Listen(
            address=address,
            metrics_host=_LOOPBACK,
            metrics_port=self.ports.metrics + _METRICS_OFFSET[service] + worker,
            drain=timedelta(seconds=self.drain_s),
            security=self._security(service),
        )

    def towards(self, service: ServiceName, caller: Peers) -> Towards | None:
        """How `caller` proves itself to `service`, for meshkit.channel.open_channel; None where nothing is proven."""
        if self.transport != "mtls":
            return None
        return Towards(self.certificate_files(caller), self._server(service))

    def certificate_files(self, service: Peers) -> CertificateFiles:
        """The certificate of one service."""
        folder = self.mtls.certificates or self.home / "tls"
        return CertificateFiles(folder.resolve() / service, spiffe_id(self.mtls.trust_domain, service))

    @property
    def sockets(self) -> Path:
        """The folder of transport uds, which this user alone may enter."""
        return self.home.resolve() / "run" / "mesh"

    def _server(self, service: ServiceName) -> ServiceName:
        """In the compact topology router worker 0 serves for all."""
        return "router" if self.topology == "compact" else service

    def _security(self, service: ServiceName) -> Security:
        if self.transport == "mtls":
            return Security("mtls", self.certificate_files(service), self.mtls.trust_domain)
        if self.transport == "mesh":
            return Security("mesh", None, self.mesh.trust_domain, self.mesh.namespace)
        return Security(self.transport)


SettingsT = TypeVar("SettingsT", bound=MeshSettings)


def parse(text: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """The file's keys. Raises SettingsError if it is not a YAML mapping of known keys."""
    file = SettingsFile(text, environment, TOP_LEVEL_KEYS)
    if file.faults:
        raise refused(FILE_NAME, file.faults)
    return file.document


def build(model: type[SettingsT], document: Mapping[str, Any], environment: Mapping[str, str]) -> SettingsT:
    """`model` from the keys it declares. Raises SettingsError naming every fault."""
    settings, faults = check(model, SettingsFile.made_of(document), document, environment)
    if settings is None:
        raise refused("", faults)
    return settings


def check(
    model: type[SettingsT],
    file: SettingsFile,
    document: Mapping[str, Any],
    environment: Mapping[str, str],
) -> tuple[SettingsT | None, list[Fault]]:
    """`model` from the keys it declares, or None with every fault that it found.

    `document` is the file's own, or one that was made from it. A value that could not be read is not judged again.
    """
    own = {key: value for key, value in document.items() if key in model.model_fields}
    if HOME_VARIABLE in environment:
        own["home"] = environment[HOME_VARIABLE]
    if not own.get("postgres_dsn") and environment.get(POSTGRES_VARIABLE):
        own["postgres_dsn"] = environment[POSTGRES_VARIABLE]
    try:
        return model(**own), []
    except ValidationError as error:
        unread = {(fault.line, fault.column) for fault in file.faults}
        found = file.refused_by(model, error)
        return None, [fault for fault in found if not fault.line or (fault.line, fault.column) not in unread]


def load(model: type[SettingsT], environment: Mapping[str, str] | None = None) -> SettingsT:
    """Reads the file that WEIR_CONFIG names, or only defaults where it is not set.

    Raises SettingsError; its message names every fault with the file, line and column, each on a line of its own.
    """
    known = os.environ if environment is None else environment
    path = known.get(CONFIG_VARIABLE)
    if not path:
        return build(model, {}, known)
    file = read_file(Path(path), known, TOP_LEVEL_KEYS)
    settings, faults = check(model, file, file.document, known) if file.readable else (None, [])
    if settings is None or file.faults:
        raise refused(path, [*file.faults, *faults])
    return settings
