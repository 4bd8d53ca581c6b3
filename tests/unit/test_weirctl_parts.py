"""Which parts a configuration calls for, and what each of them gets to know."""

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from meshkit.settings import HOME_VARIABLE, POSTGRES_VARIABLE
from weirctl import config
from weirctl.part import Part
from weirctl.parts import build_parts
from weirctl.postgres_server import PostgresFiles
from weirctl.surroundings import Surroundings
from weirctl.wanted_ports import wanted_ports

PROVIDER = "providers: {openai: {base_url: 'https://api.openai.com/v1', api_key_env: OPENAI_API_KEY}}\n"
SECRET = "sk-very-secret"

Build = Callable[..., dict[str, Part]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """The parts of a configuration, by name."""

    def make(text: str = "", *, sandbox: bool = False) -> dict[str, Part]:
        path = tmp_path / "weir.yaml"
        path.write_text(text)
        environment = {
            HOME_VARIABLE: str(tmp_path / "home"), "OPENAI_API_KEY": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET,
        }  # fmt: skip
        read = config.read(path, environment, sandbox=sandbox)
        files = PostgresFiles(tmp_path / "bin", tmp_path / "data", tmp_path / "s", pwd.getpwuid(os.geteuid()))
        database = None if read.postgres_dsn else files
        around = Surroundings(environment, tmp_path, database, sandbox, print)
        return {part.name: part for part in build_parts(read, around)}

    return make


def test_the_default_mesh(build: Build) -> None:
    """One process each, started in the order of their needs; nobody waits for Triton, and Triton ends last."""
    parts = build()
    assert list(parts) == ["postgres", "triton", "auth", "ledger", "cloud_adapter", "router-0", "edge"]
    assert parts["auth"].depends_on == parts["ledger"].depends_on == {"postgres"}
    assert parts["router-0"].depends_on == {"auth", "ledger", "cloud_adapter"}
    assert parts["router-0"].outlived_by == {"triton"}
    assert parts["edge"].depends_on == {"router-0"}


def test_compact_puts_the_services_into_the_routers(build: Build) -> None:
    """Each worker is a process with a port of its own and all services inside."""
    parts = build("topology: compact\nworkers: 2\n")
    assert list(parts) == ["postgres", "triton", "router-0", "router-1", "edge"]
    argv = parts["router-1"].argv
    assert not callable(argv)
    assert argv[-4:] == ("-m", "weirctl.compact", "--worker", "1")
    assert parts["router-0"].address != parts["router-1"].address
    assert parts["router-1"].depends_on == {"postgres"}
    assert parts["edge"].depends_on == {"router-0", "router-1"}


def test_a_provider_s_secret_reaches_cloud_adapter_alone(build: Build) -> None:
    """No other part, and no part's arguments, hold it; and no part gets a variable that nobody named."""
    parts = build(PROVIDER)
    holders = [name for name, part in parts.items() if SECRET in part.environment.values()]
    assert holders == ["cloud_adapter"]
    assert not any("AWS_SECRET_ACCESS_KEY" in part.environment for part in parts.values())
    assert not any(SECRET in repr(part) for part in parts.values())


def test_in_the_compact_topology_the_routers_hold_it(build: Build) -> None:
    """The adapter is inside them."""
    parts = build(f"topology: compact\n{PROVIDER}")
    assert [name for name, part in parts.items() if SECRET in part.environment.values()] == ["router-0"]


def test_the_database_is_known_to_those_that_use_it(build: Build) -> None:
    """Auth and ledger; nobody else."""
    parts = build()
    assert [name for name, part in parts.items() if POSTGRES_VARIABLE in part.environment] == [
        "auth",
        "ledger",
    ]


def test_a_database_of_the_user_s_own_starts_none(build: Build) -> None:
    """With postgres_dsn there is no embedded server, and its address is handed on as it is."""
    parts = build("postgres_dsn: postgresql://u:p@h/d\n")
    assert "postgres" not in parts
    assert parts["auth"].depends_on == frozenset()
    assert parts["auth"].environment[POSTGRES_VARIABLE] == "postgresql://u:p@h/d"


def test_the_sandbox_is_marked(build: Build) -> None:
    """It starts after Triton, on whose packages it lives, and ends after the routers."""
    parts = build(sandbox=True)
    assert parts["sandbox_cloud"].note == "sandbox"
    assert parts["sandbox_cloud"].depends_on == {"triton"}
    assert parts["router-0"].outlived_by == {"triton", "sandbox_cloud"}


def test_each_port_is_wanted_once_and_none_for_sockets(tmp_path: Path) -> None:
    """Over Unix sockets the services need no port but that of their metrics."""
    path = tmp_path / "weir.yaml"
    keys = {}
    for transport in ("loopback", "uds"):
        path.write_text(f"transport: {transport}\nworkers: 2\n")
        read = config.read(path, {HOME_VARIABLE: "/tmp/w"}, sandbox=True)  # noqa: S108 - only a short name
        wanted = wanted_ports(read, sandbox=True)
        assert len({want.port for want in wanted}) == len(wanted)
        keys[transport] = {want.key for want in wanted}
    assert keys["loopback"] - keys["uds"] == {
        "ports.router",
        "ports.auth",
        "ports.cloud_adapter",
        "ports.ledger",
    }
    assert "ports.sandbox_cloud" in keys["uds"]
