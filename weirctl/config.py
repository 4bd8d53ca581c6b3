"""weir.yaml as `weir up` takes it: checked as a whole, and written out for the parts.

The parts get a copy with the variables filled in, because their own environment holds next to nothing; and without the
database's connection string, which may hold a password and goes only to those that need it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from meshkit.settings import (
    CONFIG_VARIABLE,
    HOME_VARIABLE,
    TOP_LEVEL_KEYS,
    MeshSettings,
    build,
    check,
    load,
)
from meshkit.settings_faults import Fault, refused
from meshkit.settings_file import SettingsFile, read_file
from services.auth.settings import AuthSettings
from services.cloud_adapter.settings import CloudAdapterSettings
from services.ledger.settings import LedgerSettings
from services.router.settings import RouterSettings, default_target_blocks
from weirctl import sandbox_command
from weirctl.cross_check import unknown_names
from weirctl.settings import CommandSettings

DEFAULT_HOME = ".weir"
DEFAULT_FILE = "weir.yaml"
SANDBOX_PROVIDER = "sandbox"
SANDBOX_TARGET = "cloud"
SOCKET_PATH_BYTES = 107
_RUN = "run"
MODELS: tuple[type[MeshSettings], ...] = (
    CommandSettings, RouterSettings, AuthSettings, LedgerSettings, CloudAdapterSettings,
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """One checked configuration."""

    home: Path
    document: Mapping[str, Any]
    """The file's keys, variables filled in. May hold secrets."""
    command: CommandSettings
    router: RouterSettings
    cloud_adapter: CloudAdapterSettings
    postgres_dsn: str | None
    """Of a server of the user's own. May hold a password."""
    secrets: Mapping[str, str]
    """The variables that hold providers' secrets, as far as they are set."""

    @property
    def run(self) -> Path:
        """Sockets and files of the running mesh; empty when it is down."""
        return self.home / _RUN

    @property
    def needs_triton(self) -> bool:
        """Whether a target relies on the local Triton."""
        return any(target.kind == "triton" and not target.endpoint for target in self.router.targets.values())


def home_of(environment: Mapping[str, str]) -> Path:
    """WEIR_HOME, absolute."""
    return Path(environment.get(HOME_VARIABLE) or DEFAULT_HOME).resolve()


def read(path: Path | None, environment: Mapping[str, str], *, sandbox: bool) -> Config:
    """The configuration in `path`, or in ./weir.yaml, or the defaults where there is none.

    `sandbox` adds the sandbox cloud as provider `sandbox` and target `cloud`.
    Raises SettingsError: every fault on its own line, with the file's name.
    """
    if path is None and Path(DEFAULT_FILE).exists():
        path = Path(DEFAULT_FILE)
    file = SettingsFile.made_of({}) if path is None else read_file(path, environment, TOP_LEVEL_KEYS)
    name = path or "the defaults"
    if not file.readable:
        raise refused(name, file.faults)
    document = _without_embedding(file.document)
    config, faults = _checked(file, _with_sandbox(document) if sandbox else document, environment)
    if config is None or faults:
        raise refused(name, faults)
    return config


def running(home: Path) -> CommandSettings:
    """The settings of the mesh that runs for `home`. Raises SettingsError if it left none."""
    environment = {CONFIG_VARIABLE: str(effective_file(home)), HOME_VARIABLE: str(home)}
    return load(CommandSettings, environment)


def effective_file(home: Path) -> Path:
    """What the parts read as WEIR_CONFIG."""
    return home / _RUN / DEFAULT_FILE


def write_effective(config: Config, remark: str = "") -> None:
    """Replaces what the parts read, as a whole, for this user alone: it may hold secrets that variables brought in.

    With another `remark` the parts take it for changed, and read anew what other files hold.
    """
    document = {key: value for key, value in config.document.items() if key != "postgres_dsn"}
    text = yaml.safe_dump(_escaped(document), sort_keys=False, allow_unicode=True)
    path = effective_file(config.home)
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"# {' '.join(remark.split())}\n{text}")
    unfinished.replace(path)


def _checked(
    file: SettingsFile, document: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Config | None, list[Fault]]:
    home = home_of(environment)
    known = {**environment, HOME_VARIABLE: str(home)}
    unread = {fault.path for fault in file.faults}
    names = [fault for fault in unknown_names(file, document) if fault.path not in unread]
    of_names = {fault.text for fault in names}
    found = [fault for model in MODELS for fault in check(model, file, document, known)[1]]
    faults = [*file.faults, *names, *(fault for fault in found if fault.text not in of_names)]
    if faults:
        return None, faults
    command, cloud = build(CommandSettings, document, known), build(CloudAdapterSettings, document, known)
    variables = {name for provider in cloud.providers.values() for name in provider.secret_variables}
    config = Config(
        home=home,
        document=document,
        command=command,
        router=build(RouterSettings, document, known),
        cloud_adapter=cloud,
        postgres_dsn=command.postgres_dsn,
        secrets={name: environment[name] for name in sorted(variables) if name in environment},
    )
    return config, [file.fault(("transport",), text) for text in _transport_faults(command)]


def _transport_faults(mesh: CommandSettings) -> Iterator[str]:
    if mesh.transport == "mesh":
        yield "mesh needs sidecars that say who calls, and `weir up` starts none: use mtls, or Istio's chart"
    if mesh.transport == "uds":
        longest = mesh.address("cloud_adapter").removeprefix("unix:")
        if len(os.fsencode(longest)) > SOCKET_PATH_BYTES:
            yield (
                f"uds needs socket paths of at most {SOCKET_PATH_BYTES} bytes, and {longest} is longer: "
                f"set WEIR_HOME to a shorter path, or transport to mtls"
            )


def _without_embedding(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the default targets less the embedding model, where the local Triton shall not serve it."""
    triton = document.get("triton")
    if document.get("targets") or not isinstance(triton, dict) or triton.get("embedding") is not False:
        return document
    blocks = {name: block for name, block in default_target_blocks().items() if block.get("task") != "embed"}
    return {**document, "targets": blocks}


def _with_sandbox(document: Mapping[str, Any]) -> dict[str, Any]:
    # A file without targets has the local ones, and keeps them.
    targets = document.get("targets") or default_target_blocks()
    providers = document.get("providers") or {}
    if not isinstance(targets, dict) or not isinstance(providers, dict):
        return dict(document)  # the check says what is wrong
    ports = build(MeshSettings, document, {}).ports
    target = {"kind": "cloud", "provider": SANDBOX_PROVIDER, "model": sandbox_command.MODEL}
    return {
        **document,
        "providers": {**providers, SANDBOX_PROVIDER: sandbox_command.provider_block(ports.sandbox_cloud)},
        "targets": {**targets, SANDBOX_TARGET: target},
    }


def _escaped(value: Any) -> Any:
    """`value` as text that the parts' reading of variables turns back into it."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else value
