"""The bill of materials: every runtime dependency with its hashes and licence, and who needs whom."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest

from tools.licences import policy
from tools.locks import ROOT, RUNTIME, TRITON, Locked, read
from tools.sbom import bill


def locked(path: Any) -> list[Locked]:
    """What a lock pins."""
    return [each for each in read(path.read_text(encoding="utf-8")) if isinstance(each, Locked)]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """As `make sbom` writes it."""
    command = [sys.executable, "-m", "tools.sbom"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - our own tool
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_its_head(document: dict[str, Any]) -> None:
    """CycloneDX 1.6 about Weir, without a time: the same twice."""
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert UUID(document["serialNumber"].removeprefix("urn:uuid:")).version == 5
    own = document["metadata"]["component"]
    assert (own["type"], own["name"], own["licenses"]) == (
        "application",
        "weir",
        [{"expression": "Apache-2.0"}],
    )
    assert "timestamp" not in document["metadata"]


def test_every_runtime_dependency_is_there(document: dict[str, Any]) -> None:
    """With version, package URL, hashes as locked, and licence."""
    found = {each["bom-ref"]: each for each in document["components"]}
    assert len(found) == len(document["components"])
    for scope, path in (("required", RUNTIME), ("optional", TRITON)):
        for each in locked(path):
            component = found.pop(f"pkg:pypi/{each.name}@{each.version}")
            assert (component["name"], component["version"], component["scope"]) == (
                each.name,
                each.version,
                scope,
            )
            assert {digest["content"] for digest in component["hashes"]} == set(each.sha256)
            assert all(re.fullmatch("[0-9a-f]{64}", digest["content"]) for digest in component["hashes"])
            assert component["licenses"][0]["expression"]
    assert found == {}


def test_who_needs_whom(document: dict[str, Any]) -> None:
    """References to what is there alone; everything required is reached from Weir, extras of requirements included."""
    graph = {row["ref"]: row["dependsOn"] for row in document["dependencies"]}
    refs = {each["bom-ref"] for each in document["components"]}
    assert set(graph) - {"weir"} <= refs
    assert {ref for needed in graph.values() for ref in needed} <= refs
    reached, todo = set(), ["weir"]
    while todo:
        ref = todo.pop()
        if ref not in reached:
            reached.add(ref)
            todo += graph.get(ref, [])
    lost = {each["bom-ref"] for each in document["components"] if "properties" not in each} - reached
    assert lost == set(), "what is needed on every platform is needed by somebody"
    assert any(ref.startswith("pkg:pypi/psycopg-binary@") for ref in reached)


def test_another_lock_is_another_bill() -> None:
    """The serial number is made of the content."""
    project = {"name": "weir", "version": "1", "license": "Apache-2.0", "dependencies": ["a"]}
    one, other = (
        bill([Locked("a", version, None, ("ab" * 32,))], [], project, policy()) for version in ("1", "2")
    )
    assert one["serialNumber"] != other["serialNumber"]
    assert one == bill([Locked("a", "1", None, ("ab" * 32,))], [], project, policy())
    assert one["dependencies"][0] == {"ref": "weir", "dependsOn": ["pkg:pypi/a@1"]}
