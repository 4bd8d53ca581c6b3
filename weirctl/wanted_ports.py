"""Which TCP ports a configuration takes."""

from __future__ import annotations

from collections.abc import Iterator

from meshkit.settings import ServiceName
from weirctl.config import Config
from weirctl.taken_ports import WantedPort

_LOOPBACK = "127.0.0.1"
_SERVICES: tuple[ServiceName, ...] = ("auth", "cloud_adapter", "ledger")


def wanted_ports(config: Config, *, sandbox: bool) -> list[WantedPort]:
    """Every port that `weir up` needs, the one that clients use first."""
    ports = config.command.ports
    wanted = [
        WantedPort(
            config.command.edge.host, ports.edge, "the edge (HTTP and gRPC for clients)", "ports.edge"
        ),
        WantedPort(_LOOPBACK, ports.edge_admin, "the edge's admin interface", "ports.edge_admin"),
        *_of_services(config),
    ]
    if config.needs_triton:
        wanted += [
            WantedPort(_LOOPBACK, ports.triton_grpc, "Triton (gRPC)", "ports.triton_grpc"),
            WantedPort(_LOOPBACK, ports.triton_http, "Triton (HTTP)", "ports.triton_http"),
            WantedPort(_LOOPBACK, ports.triton_metrics, "Triton's metrics", "ports.triton_metrics"),
        ]
    if sandbox:
        wanted.append(WantedPort(_LOOPBACK, ports.sandbox_cloud, "the sandbox cloud", "ports.sandbox_cloud"))
    return wanted


def _of_services(config: Config) -> Iterator[WantedPort]:
    mesh = config.command
    listeners: list[tuple[ServiceName, int]] = [("router", worker) for worker in range(mesh.workers)]
    if mesh.topology == "separate":
        listeners += [(service, 0) for service in _SERVICES]
    for service, worker in listeners:
        listen = mesh.listen(service, worker)
        name = f"router worker {worker}" if service == "router" else service
        if not listen.address.startswith("unix:"):
            port = int(listen.address.rpartition(":")[2])
            yield WantedPort(_LOOPBACK, port, name, f"ports.{service}")
        yield WantedPort(listen.metrics_host, listen.metrics_port, f"the metrics of {name}", "ports.metrics")
