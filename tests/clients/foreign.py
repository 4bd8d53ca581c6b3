"""Clients in other languages: what they need is fetched at pinned versions, and each of their tests is one of pytest's.

A machine without Node or Go skips them and says so. On CI (`CI=true`) a fetch or build that fails there is a failure.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.configuration import PAGE
from tests.harness.running_weir import ROOT, RunningWeir

HERE = Path(__file__).parent
NODE_FILES = HERE / "node"
GO_FILES = HERE / "go"
FETCH_LIMIT_S = 600
RUN_LIMIT_S = 100
OLDEST_NODE = (20, 0)
OLDEST_GO = (1, 25)
GO_MODULE = "weir.test/client"
CONTRACTS = ("weir/router/v1/router", "weir/type/v1/chat", "weir/type/v1/target", "weir/type/v1/usage")
GO_PLUGINS = {
    "go": "google.golang.org/protobuf/cmd/protoc-gen-go",
    "go-grpc": "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
}


class UnavailableError(Exception):
    """A tool is missing or too old: its tests are skipped."""


class FetchFailedError(Exception):
    """A tool is there, and what it fetches or builds failed."""


@dataclass(frozen=True)
class Outcome:
    """One foreign test."""

    passed: bool
    output: str
    """All that its run printed."""


def node_tests(script: str) -> list[str]:
    """The names of a script's tests."""
    text = (NODE_FILES / script).read_text(encoding="utf-8")
    return re.findall(r"^test\('([^']+)'", text, re.MULTILINE)


def go_tests() -> list[str]:
    """The names of the Go client's tests."""
    text = (GO_FILES / "weir_test.go").read_text(encoding="utf-8")
    return re.findall(r"^func (Test\w+)\(t \*testing\.T\)", text, re.MULTILINE)


class Toolchains:
    """Fetches and builds in the background from its making on, in `folder`; each once.

    Args:
        folder: empty; nothing of it is kept.
        wanted: which of `node` and `go` are needed.
    """

    def __init__(self, folder: Path, wanted: Sequence[str]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=2)
        makers: dict[str, Callable[[Path], Path]] = {"node": _node_folder, "go": _go_binary}
        self._made: dict[str, Future[Path]] = {
            name: self._pool.submit(makers[name], folder / name) for name in wanted
        }

    def get(self, name: str) -> Path:
        """The folder of Node's scripts and packages, or Go's binary. Skips or fails the test where there is none."""
        try:
            return self._made[name].result()
        except UnavailableError as error:
            pytest.skip(str(error))
        except FetchFailedError as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error))
            pytest.skip(f"not reachable here? {error}")

    def close(self) -> None:
        """Returns when nothing runs any more."""
        self._pool.shutdown(cancel_futures=True)


def run_node(folder: Path, script: str, weir: RunningWeir) -> dict[str, Outcome]:
    """Every test of a script, by name."""
    found = _run(["node", "--test-reporter=tap", script], folder, _place(weir))
    lines = re.findall(r"^(ok|not ok) \d+ - (.+?)(?: # .*)?$", found.stdout, re.MULTILINE)
    return {name: Outcome(word == "ok", found.stdout + found.stderr) for word, name in lines}


def run_go(binary: Path, weir: RunningWeir) -> dict[str, Outcome]:
    """Every test of the Go client, by name."""
    found = _run([str(binary), "-test.v", "-test.parallel=1"], binary.parent, _place(weir))
    lines = re.findall(r"^--- (PASS|FAIL): (\w+)", found.stdout, re.MULTILINE)
    return {name: Outcome(word == "PASS", found.stdout + found.stderr) for word, name in lines}


def _place(weir: RunningWeir) -> dict[str, str]:
    return {
        "WEIR_BASE_URL": weir.base_url,
        "WEIR_URL": f"http://{weir.edge}",
        "WEIR_ADDRESS": weir.edge,
        "WEIR_KEY": weir.key,
        "WEIR_PAGE": PAGE,
        "WEIR_PROTO": str(ROOT / "proto"),
        "WEIR_DESCRIPTORS": str(ROOT / "gen" / "weir.binpb"),
    }


def _run(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], limit_s: float = RUN_LIMIT_S
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own commands
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )


def _fetch(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    found = _run(command, folder, environment, FETCH_LIMIT_S)
    if found.returncode:
        raise FetchFailedError(f"{' '.join(command)}:\n{(found.stdout + found.stderr)[-2_000:]}")


def _version(command: Sequence[str], pattern: str, oldest: tuple[int, int]) -> None:
    """Raises UnavailableError unless the tool is there and new enough."""
    if shutil.which(command[0]) is None:
        raise UnavailableError(f"{command[0]} is not installed")
    text = _run(command, HERE, {}).stdout
    found = re.search(pattern, text)
    if found is None or (int(found[1]), int(found[2])) < oldest:
        raise UnavailableError(f"{command[0]} is {text.strip()}; {oldest[0]}.{oldest[1]} or newer is needed")


def _node_folder(folder: Path) -> Path:
    _version(["node", "--version"], r"v(\d+)\.(\d+)", OLDEST_NODE)
    _version(["npm", "--version"], r"(\d+)\.(\d+)", (0, 0))
    shutil.copytree(NODE_FILES, folder, ignore=shutil.ignore_patterns("node_modules"))
    _fetch(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], folder, {})
    return folder


def _go_binary(folder: Path) -> Path:
    _version(["go", "version"], r"go(\d+)\.(\d+)", OLDEST_GO)
    shutil.copytree(GO_FILES, folder)
    environment = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    _fetch(["go", "build", "-o", "bin/", *GO_PLUGINS.values()], folder, environment)
    _fetch(_protoc(folder), ROOT, {})
    _fetch(["go", "test", "-c", "-o", "client.test", "."], folder, environment)
    return folder / "client.test"


def _protoc(folder: Path) -> list[str]:
    """Typed Go from the contracts, which name no Go package themselves."""
    plugins = [f"--plugin=protoc-gen-{name}={folder}/bin/protoc-gen-{name}" for name in GO_PLUGINS]
    outputs = [f"--{name}_out={folder}" for name in GO_PLUGINS]
    modules = [f"--{name}_opt=module={GO_MODULE}" for name in GO_PLUGINS]
    packages = [
        f"--{name}_opt=M{path}.proto={GO_MODULE}/gen/{path.rpartition('/')[0]}"
        for name in GO_PLUGINS
        for path in CONTRACTS
    ]
    files = [f"{path}.proto" for path in CONTRACTS]
    return [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-Iproto",
        *plugins,
        *outputs,
        *modules,
        *packages,
        *files,
    ]
