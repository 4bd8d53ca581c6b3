"""weir.yaml as `weir up` takes it."""

import os
import stat
from pathlib import Path

import pytest

from meshkit.settings import CONFIG_VARIABLE, HOME_VARIABLE, SettingsError, load
from services.cloud_adapter.settings import CloudAdapterSettings
from services.router.settings import RouterSettings
from weirctl import config


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty WEIR_HOME."""
    return tmp_path / "home"


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "weir.yaml"
    path.write_text(text)
    return path


def _read(
    tmp_path: Path, home: Path, text: str, *, sandbox: bool = False, **environment: str
) -> config.Config:
    return config.read(_file(tmp_path, text), {HOME_VARIABLE: str(home), **environment}, sandbox=sandbox)


def test_every_fault_of_every_service_is_named_on_its_own_line(tmp_path: Path, home: Path) -> None:
    """Faults of the file, of the edge, of Triton, of a service and a variable come together, with the file's name."""
    text = (
        "portz: 1\nedge: {threads: x}\ntriton: {slots: 0}\nauth: {poll_s: 99}\nrouter: {spool: 3}\n"
        "models: {m: {plan: [local, nix]}, n: {plan: [nada]}}\n"
        "targets:\n  local: {kind: triton, limits: {total_s: 0}}\n"
        "  c: {kind: cloud, provider: nobody, model: m}\ndefault_model: ${MISSING}\n"
    )
    with pytest.raises(SettingsError) as caught:
        _read(tmp_path, home, text)
    lines = str(caught.value).splitlines()
    prefix = f"{tmp_path}/weir.yaml:"
    assert all(line.startswith(prefix) for line in lines)
    assert [line.removeprefix(prefix).split(": ")[:2] for line in lines] == [
        ["1:1", "portz"], ["2:17", "edge.threads"], ["3:17", "triton.slots"], ["4:16", "auth.poll_s"],
        ["5:17", "router.spool"], ["6:28", "models.m.plan.1"], ["6:46", "models.n.plan.0"],
        ["8:43", "targets.local.limits.total_s"], ["9:30", "targets.c.provider"], ["10:16", "default_model"],
    ]  # fmt: skip


def test_names_that_are_not_there_are_told_once_each(tmp_path: Path, home: Path) -> None:
    """Where all else is good, the settings classes and the check of names do not both complain."""
    text = "models: {m: {plan: [local, nix]}, n: {plan: [nada]}}\ndefault_model: nobody\n"
    with pytest.raises(SettingsError) as caught:
        _read(tmp_path, home, text)
    assert len(str(caught.value).splitlines()) == 3


def test_a_target_of_an_unknown_provider_is_a_fault(tmp_path: Path, home: Path) -> None:
    """What no single service can see is checked too."""
    text = "targets: {c: {kind: cloud, provider: nobody, model: m}}\ndefault_model: c\n"
    with pytest.raises(SettingsError, match=r"targets\.c\.provider: no provider 'nobody'"):
        _read(tmp_path, home, text)


def test_a_missing_file_is_a_fault_and_no_file_means_the_defaults(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was named must be there; ./weir.yaml need not."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="No such file"):
        config.read(Path("nowhere.yaml"), {HOME_VARIABLE: str(home)}, sandbox=False)
    assert config.read(None, {HOME_VARIABLE: str(home)}, sandbox=False).needs_triton
    _file(tmp_path, "workers: 3\n")
    assert config.read(None, {HOME_VARIABLE: str(home)}, sandbox=False).command.workers == 3


def test_the_parts_read_what_was_checked(tmp_path: Path, home: Path) -> None:
    """Variables are filled in, a literal ${ stays one, the file is its owner's alone, the DSN is not in it."""
    text = (
        "postgres_dsn: postgresql://u:secret@h/d\n"
        "providers: {p: {base_url: 'http://127.0.0.1:${PORT}/v1', project: 'a$${b}', api_key_env: KEY}}\n"
    )
    read = _read(tmp_path, home, text, PORT="9", KEY="hidden", OTHER="x")
    read.run.mkdir(parents=True)
    config.write_effective(read)
    path = config.effective_file(home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "secret" not in path.read_text()
    assert read.postgres_dsn == "postgresql://u:secret@h/d"
    assert read.secrets == {"KEY": "hidden"}
    seen = load(CloudAdapterSettings, {CONFIG_VARIABLE: str(path)}).providers["p"]
    assert (seen.base_url, seen.project) == ("http://127.0.0.1:9/v1", "a${b}")


def test_the_sandbox_becomes_a_provider_and_the_target_cloud(tmp_path: Path, home: Path) -> None:
    """The local targets that the defaults have stay; the sandbox listens where ports say."""
    read = _read(tmp_path, home, "ports: {sandbox_cloud: 7777}\n", sandbox=True)
    assert read.cloud_adapter.providers["sandbox"].sandbox
    assert ":7777" in read.cloud_adapter.providers["sandbox"].base_url
    assert sorted(read.router.targets) == ["cloud", "local", "local-embed"]
    read.run.mkdir(parents=True)
    config.write_effective(read)
    assert sorted(load(RouterSettings, {CONFIG_VARIABLE: str(config.effective_file(home))}).targets) == [
        "cloud",
        "local",
        "local-embed",
    ]


def test_without_the_embedding_model_its_target_goes_too(tmp_path: Path, home: Path) -> None:
    """A target that nobody serves would be down for ever; one that the file names itself stays."""
    read = _read(tmp_path, home, "triton: {embedding: false}\n")
    assert sorted(read.router.targets) == ["local"]
    sandboxed = _read(tmp_path, home, "triton: {embedding: false}\n", sandbox=True)
    assert sorted(sandboxed.router.targets) == ["cloud", "local"]
    named = _read(
        tmp_path,
        home,
        "triton: {embedding: false}\ntargets: {local: {kind: triton}, e: {kind: triton, task: embed}}\n",
    )
    assert sorted(named.router.targets) == ["e", "local"]


def test_a_socket_path_that_is_too_long_is_a_fault(tmp_path: Path) -> None:
    """With transport uds, the home's path must leave room for the sockets' names."""
    with pytest.raises(SettingsError, match="set WEIR_HOME to a shorter path"):
        _read(tmp_path, tmp_path / ("d" * 100), "transport: uds\n")


def test_no_triton_where_no_target_needs_it(tmp_path: Path, home: Path) -> None:
    """A Triton elsewhere, or none at all: none is started."""
    text = "targets: {t: {kind: triton, endpoint: 'gpu:8001'}}\n"
    assert not _read(tmp_path, home, text).needs_triton


def test_home_is_absolute() -> None:
    """Relative homes begin at the working directory."""
    assert config.home_of({}) == Path(os.getcwd(), ".weir")  # noqa: PTH109 - the test's own way to the same


def test_transport_mesh_is_istio_s(tmp_path: Path) -> None:
    """`weir up` starts no sidecars, so nobody could say who calls."""
    with pytest.raises(SettingsError, match="mesh needs sidecars"):
        _read(tmp_path, tmp_path, "transport: mesh\n")
