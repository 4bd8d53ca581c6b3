"""docs/clients.md as its reader uses it: every block of it is run against a running Weir."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.clients.foreign import GO_MODULE, Toolchains
from tests.harness.running_weir import ROOT, RunningWeir

PAGE = ROOT / "docs" / "clients.md"
SHOWN_EDGE = "127.0.0.1:8080"
SHOWN_GO_MODULE = "example.com/weir/client"
RUN_LIMIT_S = 100
pytestmark = pytest.mark.timeout(600)  # what they need is fetched and built meanwhile


class Block(NamedTuple):
    """A fenced block."""

    heading: str
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    """The page's blocks in these languages."""
    found, heading = [], ""
    for part in re.split(r"^(#+ .+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        if part.startswith("#"):
            heading = part.strip("# ")
        found += [Block(heading, *match) for match in re.findall(r"```(\w+)\n(.*?)```", part, re.DOTALL)]
    return [block for block in found if block.language in languages]


def named(languages: Sequence[str]) -> pytest.MarkDecorator:
    """A test for each block."""
    chosen = blocks(*languages)
    ids = [f"{block.heading} {number}" for number, block in enumerate(chosen)]
    return pytest.mark.parametrize("block", chosen, ids=ids)


def run(command: Sequence[str], folder: Path) -> str:
    """What it prints. Fails with all that it printed where it fails."""
    found = subprocess.run(  # noqa: S603 - the project's own documentation
        command,
        cwd=folder,
        env={**os.environ, "GOTOOLCHAIN": "local"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def written(block: Block, weir: RunningWeir, path: Path) -> Path:
    """The block as a file, with this Weir's address; beside it what the page refers to."""
    text = block.text.replace(SHOWN_EDGE, weir.edge).replace(SHOWN_GO_MODULE, GO_MODULE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def furnish(folder: Path, weir: RunningWeir) -> None:
    """The folder as the page takes it: the repository's, after `weir up`."""
    for name, place in {".weir": weir.home, "proto": ROOT / "proto", "gen": ROOT / "gen"}.items():
        if not (folder / name).exists():
            (folder / name).symlink_to(place)


@named(["sh"])
def test_shell(weir: RunningWeir, tmp_path: Path, block: Block) -> None:
    """Answers, and no error object among them."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    furnish(tmp_path, weir)
    output = run(["bash", "-eu", str(written(block, weir, tmp_path / "block.sh"))], tmp_path)
    assert '"error":{' not in output
    assert output.count('"object":') >= block.text.count("curl ")


@named(["python"])
def test_python(weir: RunningWeir, tmp_path: Path, block: Block) -> None:
    """Runs to its end."""
    furnish(tmp_path, weir)
    assert run([sys.executable, str(written(block, weir, tmp_path / "block.py"))], tmp_path)


@named(["js"])
def test_node(weir: RunningWeir, toolchains: Toolchains, block: Block) -> None:
    """Runs to its end."""
    folder = toolchains.get("node")
    furnish(folder, weir)
    assert run(["node", str(written(block, weir, folder / "block.mjs"))], folder)


@named(["go"])
def test_go(weir: RunningWeir, toolchains: Toolchains, tmp_path: Path, block: Block) -> None:
    """Runs to its end."""
    folder = toolchains.get("go").parent
    written(block, weir, folder / "block" / "main.go")
    furnish(tmp_path, weir)
    binary = tmp_path / "block"
    run(["go", "build", "-o", str(binary), "./block"], folder)
    assert "FINISH_REASON_" in run([str(binary)], tmp_path)


def test_blocks_are_found() -> None:
    """None of the languages is forgotten; what is not run is configuration and the Go generator's installation."""
    languages = [block.language for block in blocks(*{"sh", "python", "js", "go", "yaml", "text"})]
    assert {language: languages.count(language) for language in set(languages)} == {
        "sh": 4, "python": 2, "js": 3, "go": 1, "yaml": 1, "text": 1,
    }  # fmt: skip
    assert len(re.findall(r"^```\w+$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)) == len(languages)
