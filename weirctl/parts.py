"""The parts of the mesh, as the settings call for them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from edge.command import command as edge_command
from edge.drain import DrainFailedError, drain
from edge.render import render
from edge.tls import EdgeTls
from meshkit.settings import CONFIG_VARIABLE, HOME_VARIABLE, POSTGRES_VARIABLE, ServiceName
from weirctl import postgres_server as postgres
from weirctl.backend_parts import POSTGRES, SANDBOX, TRITON, postgres_part, sandbox_part, triton_part
from weirctl.config import Config, effective_file
from weirctl.part import Part
from weirctl.probes import grpc_serving, http_ok
from weirctl.surroundings import ROOT, Surroundings

EDGE: Final = "edge"
_NEIGHBOURS: tuple[ServiceName, ...] = ("auth", "ledger", "cloud_adapter")
_NEEDS_DATABASE: frozenset[str] = frozenset({"auth", "ledger"})
_STOP_MARGIN_S = 5.0
# A busy machine may take long to import what a service is made of.
_READY_WITHIN_S = 60.0
# How others are reached through the user's proxy or trusted by the user's certificates: for cloud_adapter, and for auth
# where an issuer of tokens publishes its keys at a URL.
_OUTWARD = (
    "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip


def build_parts(config: Config, around: Surroundings) -> list[Part]:
    """Every part of the mesh, in the order in which a human would list them."""
    parts: list[Part] = []
    if around.database is not None:
        parts.append(postgres_part(around.database))
    if config.needs_triton:
        parts.append(triton_part(config, around))
    if around.sandbox:
        parts.append(sandbox_part(config, around))
    if config.command.topology == "separate":
        parts += [_service(config, around, name) for name in _NEIGHBOURS]
    parts += [_router(config, around, worker) for worker in range(config.command.workers)]
    return [*parts, _edge(config, around)]


def _service(config: Config, around: Surroundings, name: ServiceName) -> Part:
    environment = _environment(config, around)
    needs: frozenset[str] = frozenset()
    if name in _NEEDS_DATABASE:
        environment |= _database(config, around)
        needs = frozenset({POSTGRES}) if around.database else frozenset()
    if name == "cloud_adapter":
        environment |= _outward(config, around)
    if name == "auth" and _fetches_keys(config):
        environment |= _way_out(around)
    return _python_part(config, around, (name, 0), ("-m", f"services.{name}"), environment, needs)


def _router(config: Config, around: Surroundings, worker: int) -> Part:
    environment = _environment(config, around)
    needs: set[str] = set(_NEIGHBOURS)
    module = "services.router"
    if config.command.topology == "compact":
        environment |= _database(config, around) | _outward(config, around)
        needs = {POSTGRES} if around.database else set()
        module = "weirctl.compact"
    arguments = ("-m", module, "--worker", str(worker))
    part = _python_part(config, around, ("router", worker), arguments, environment, frozenset(needs))
    return replace(part, name=f"router-{worker}", outlived_by=_backends(config, around))


def _python_part(
    config: Config,
    around: Surroundings,
    listener: tuple[ServiceName, int],
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    needs: frozenset[str],
) -> Part:
    address = config.command.address(*listener)

    async def remove_socket() -> None:
        if address.startswith("unix:"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address.removeprefix("unix:"))  # noqa: PTH108 - a Path's unlink counts as blocking

    return Part(
        name=listener[0],
        # -P: a module of the working directory must not take the place of one of ours.
        argv=(sys.executable, "-P", *arguments),
        environment=environment,
        directory=around.directory,
        probe=grpc_serving(address, config.command.towards(listener[0], "operator")),
        depends_on=needs,
        address=address,
        ready_within_s=_READY_WITHIN_S,
        stop_within_s=config.command.drain_s + _STOP_MARGIN_S,
        before_start=remove_socket,
        after_end=remove_socket,
    )


def _backends(config: Config, around: Surroundings) -> frozenset[str]:
    """What routers need not wait for, because they look for themselves whether a target is ready."""
    triton = {TRITON} if config.needs_triton else set()
    return frozenset(triton | ({SANDBOX} if around.sandbox else set()))


def _edge(config: Config, around: Surroundings) -> Part:
    command = config.command
    routers = [command.address("router", worker) for worker in range(command.workers)]
    admin = f"127.0.0.1:{command.ports.edge_admin}"
    bootstrap = config.run / "envoy.yaml"
    tls = _edge_tls(config)

    async def write_bootstrap() -> None:
        text = render(
            command.edge,
            port=command.ports.edge,
            admin_port=command.ports.edge_admin,
            routers=routers,
            auth=command.address("auth"),
            tls=tls,
        )
        bootstrap.write_text(text, encoding="utf-8")
        for path, content in ({} if tls is None else tls.secret_files()).items():
            path.write_text(content, encoding="utf-8")

    async def drain_edge() -> None:
        try:
            if not await drain(admin, timedelta(seconds=command.drain_s)):
                around.report(f"{EDGE}: requests still ran after {command.drain_s:g} s and were cut")
        except DrainFailedError as error:
            around.report(f"{EDGE}: {error}")

    return Part(
        name=EDGE,
        argv=tuple(edge_command(bootstrap, command.edge)),
        environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        directory=config.run,
        probe=http_ok(admin, "/ready"),
        depends_on=frozenset(f"router-{worker}" for worker in range(command.workers)),
        address=f"{command.edge.host}:{command.ports.edge}",
        before_start=write_bootstrap,
        drain=drain_edge,
    )


def _edge_tls(config: Config) -> EdgeTls | None:
    towards = config.command.towards("auth", EDGE)
    if towards is None:
        return None
    return EdgeTls(towards.own, config.command.mtls.trust_domain, config.run, towards.server)


def _environment(config: Config, around: Surroundings) -> dict[str, str]:
    """What every service gets."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        CONFIG_VARIABLE: str(effective_file(config.home)),
        HOME_VARIABLE: str(config.home),
    }
    if "TZ" in around.environment:
        environment["TZ"] = around.environment["TZ"]
    return environment


def _database(config: Config, around: Surroundings) -> dict[str, str]:
    if around.database is not None:
        return {POSTGRES_VARIABLE: postgres.dsn(around.database)}
    return {POSTGRES_VARIABLE: config.postgres_dsn or ""}


def _outward(config: Config, around: Surroundings) -> dict[str, str]:
    return {**_way_out(around), **config.secrets}


def _way_out(around: Surroundings) -> dict[str, str]:
    return {name: around.environment[name] for name in _OUTWARD if name in around.environment}


def _fetches_keys(config: Config) -> bool:
    issuers = (config.document.get("auth") or {}).get("issuers") or {}
    return any("jwks_url" in issuer for issuer in issuers.values())
