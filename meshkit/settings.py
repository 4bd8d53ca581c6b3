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

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from meshkit.variables import ExpandedValues

CONFIG_VARIABLE = "WEIR_CONFIG"
HOME_VARIABLE = "WEIR_HOME"
POSTGRES_VARIABLE = "WEIR_POSTGRES_DSN"

Port = Annotated[int, Field(ge=1, le=65_535)]
ServiceName = Literal["router", "auth", "cloud_adapter", "ledger"]

TOP_LEVEL_KEYS = frozenset({
    "transport", "topology", "workers", "ports", "postgres_dsn", "drain_s",
    "default_model", "models", "targets", "router",
    "providers", "cloud_adapter", "auth", "ledger", "edge", "triton",
})  # fmt: skip
"""Every key that weir.yaml may have at its top."""


class SettingsError(ValueError):
    """The file cannot be used; the message names each fault on a line of its own."""


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


class MeshSettings(Strict):
    """What every process of the mesh knows."""

    transport: Literal["loopback", "uds"] = "loopback"
    """How services reach each other: TCP on loopback, or Unix sockets under WEIR_HOME."""
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
        """Where `service` is reached. In the compact topology router worker 0 serves for all."""
        name = "router" if self.topology == "compact" else service
        if self.transport == "uds":
            return f"unix:{self.home.resolve()}/run/{name}-{worker}.sock"
        return f"127.0.0.1:{getattr(self.ports, name) + worker}"

    def listen(self, service: ServiceName, worker: int = 0) -> Listen:
        """Where a process of `service` listens."""
        return Listen(
            address=self.address(service, worker),
            metrics_host="127.0.0.1",
            metrics_port=self.ports.metrics + _METRICS_OFFSET[service] + worker,
            drain=timedelta(seconds=self.drain_s),
        )


SettingsT = TypeVar("SettingsT", bound=MeshSettings)


def parse(text: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """The file's keys. Raises SettingsError if it is not a YAML mapping of known keys."""
    document, faults = _parse(text, environment)
    if faults:
        raise SettingsError("\n".join(faults))
    return document


def _parse(text: str, environment: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    try:
        loader = yaml.SafeLoader(text)
        values = ExpandedValues(loader, environment)
        root = loader.get_single_node()
        values.visit(root)
        document = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise SettingsError(f"{line}not YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SettingsError(f"not YAML: {str(error).splitlines()[0]}") from error
    if document is None:
        return {}, values.faults
    if not isinstance(document, dict):
        raise SettingsError("the top of the file must be a mapping of keys")
    known = ", ".join(sorted(TOP_LEVEL_KEYS))
    unknown = sorted(str(key) for key in document if key not in TOP_LEVEL_KEYS)
    return document, [*values.faults, *(f"{key}: unknown key (known: {known})" for key in unknown)]


def build(model: type[SettingsT], document: Mapping[str, Any], environment: Mapping[str, str]) -> SettingsT:
    """`model` from the keys it declares. Raises SettingsError naming every fault."""
    settings, faults = _build(model, document, environment)
    if settings is None:
        raise SettingsError("\n".join(faults))
    return settings


def _build(
    model: type[SettingsT], document: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[SettingsT | None, list[str]]:
    own = {key: value for key, value in document.items() if key in model.model_fields}
    if HOME_VARIABLE in environment:
        own["home"] = environment[HOME_VARIABLE]
    if not own.get("postgres_dsn") and environment.get(POSTGRES_VARIABLE):
        own["postgres_dsn"] = environment[POSTGRES_VARIABLE]
    try:
        return model(**own), []
    except ValidationError as error:
        return None, [_fault_line(fault["loc"], fault["msg"]) for fault in error.errors()]


def _fault_line(place: tuple[int | str, ...], message: str) -> str:
    """One line for one of pydantic's faults; a validator of a whole model names the place in its own text."""
    text = message.removeprefix("Value error, ")
    return f"{'.'.join(map(str, place))}: {text}" if place else text


def load(model: type[SettingsT], environment: Mapping[str, str] | None = None) -> SettingsT:
    """Reads the file that WEIR_CONFIG names, or only defaults where it is not set.

    Raises SettingsError; its message names the file and every fault, each on a line of its own.
    """
    known = os.environ if environment is None else environment
    path = known.get(CONFIG_VARIABLE)
    if not path:
        return build(model, {}, known)
    try:
        document, faults = _parse(Path(path).read_text(encoding="utf-8"), known)
        settings, more = _build(model, document, known)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8") from error
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    if settings is None or faults:
        raise SettingsError("\n".join(f"{path}: {fault}" for fault in (*faults, *more)))
    return settings
