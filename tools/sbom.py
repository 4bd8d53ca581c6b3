"""`make sbom`: what Weir runs with, as CycloneDX 1.6 JSON on standard output; the same for the same locks and venv.

Components are those of requirements/runtime.txt, and as optional ones those of the local Triton's venv. Their hashes
are of all files that the lock admits: a wheel for each platform and the source.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections import deque
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.licences import Policy, licence_of, policy
from tools.locks import ROOT, RUNTIME, TRITON, Locked, LockError, read

Block = dict[str, Any]


def bill(runtime: Sequence[Locked], optional: Sequence[Locked], project: Block, rules: Policy) -> Block:
    """The document.

    Args:
        runtime: what every process needs.
        optional: what the local Triton needs.
        project: the table `project` of pyproject.toml.
        rules: licences that packages do not say themselves.
    """
    refs = set(map(_ref, runtime))
    optional = [each for each in optional if _ref(each) not in refs]
    components = [_component(each, "required", rules) for each in runtime]
    components += [_component(each, "optional", rules) for each in optional]
    own: Block = {
        "type": "application", "bom-ref": "weir", "name": project["name"], "version": project["version"],
        "licenses": [{"expression": project["license"]}],
    }  # fmt: skip
    document = {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": own},
        "components": components, "dependencies": _dependencies(runtime, optional, project["dependencies"]),
    }  # fmt: skip
    # By its content, and without a time: two runs can be compared.
    name = json.dumps(document, sort_keys=True)
    return {"serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, name)}", **document}


def _component(each: Locked, scope: str, rules: Policy) -> Block:
    component: Block = {
        "type": "library", "bom-ref": _ref(each), "name": each.name, "version": each.version, "scope": scope,
        "purl": _ref(each),
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in sorted(set(each.sha256))],
    }  # fmt: skip
    licence = licence_of(each.name, rules)
    if licence is not None:
        component["licenses"] = [{"expression": licence}]
    if each.marker is not None:
        component["properties"] = [{"name": "weir:installed-where", "value": str(each.marker)}]
    return component


def _ref(each: Locked) -> str:
    return f"pkg:pypi/{each.name}@{each.version}"


def _dependencies(
    runtime: Sequence[Locked], optional: Sequence[Locked], direct: Sequence[str]
) -> list[Block]:
    """Who needs whom, as the installed packages say it; of Triton's, which are not in this venv, only that they are."""
    refs: dict[str, list[str]] = {}
    for each in runtime:
        refs.setdefault(each.name, []).append(_ref(each))
    needed: dict[str, set[str]] = {"weir": {name for name, _ in _wanted(direct, "")}}
    todo = deque(_wanted(direct, ""))
    seen: set[tuple[str, str]] = set()
    while todo:
        name, extra = todo.popleft()
        if name not in refs or (name, extra) in seen:
            continue
        seen.add((name, extra))
        wanted = list(_wanted(_requirements(name), extra))
        needed.setdefault(name, set()).update(found for found, _ in wanted)
        todo.extend(wanted)
    rows = [("weir", sorted({*_all(refs, needed.pop("weir")), *map(_ref, optional)}))]
    rows += [(ref, _all(refs, needed.get(name, set()))) for name in sorted(refs) for ref in refs[name]]
    return [{"ref": ref, "dependsOn": others} for ref, others in rows]


def _all(refs: dict[str, list[str]], names: set[str]) -> list[str]:
    return [ref for name in sorted(names) for ref in refs.get(name, ())]


def _requirements(name: str) -> Sequence[str]:
    try:
        return requires(name) or ()
    except PackageNotFoundError:
        return ()


def _wanted(requirements: Sequence[str], extra: str) -> Iterator[tuple[str, str]]:
    """Names that are needed here, each once without an extra and once with each that is asked for."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            name = canonicalize_name(requirement.name)
            yield from ((name, wanted) for wanted in ("", *sorted(requirement.extras)))


def main() -> int:
    """Writes it. Returns the exit status."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    read_locks = [list(read(path.read_text(encoding="utf-8"))) for path in (RUNTIME, TRITON)]
    for fault in (each for lock in read_locks for each in lock if isinstance(each, LockError)):
        sys.stderr.write(f"{fault}\n")
        return 1
    runtime, optional = ([each for each in lock if isinstance(each, Locked)] for lock in read_locks)
    json.dump(bill(runtime, optional, project, policy()), sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
