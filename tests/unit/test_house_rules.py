"""The rules of the house that no linter knows. Each failure names the file, and the line where there is one."""

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = (
    "bench",
    "dialects",
    "edge",
    "meshkit",
    "pricing",
    "services",
    "tests",
    "tools",
    "triton_models",
    "weirctl",
)
_MAX_FILE_LINES = 400
_MAX_FUNCTION_LINES = 50
_SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|pragma:\s*no cover|pylint:|buf:lint:ignore)(?P<rest>.*)")
_NAMED = re.compile(r"#\s*(noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*|type: ignore\[[^\]]+\]|pragma: no cover)")
_GRPC_ROOMS = frozenset({"servicer", "adapters", "bootstrap"})
_ABOVE_USE_CASES = frozenset({"__main__", "bootstrap", "servicer", "adapters"})
_PURE = ("meshkit.errors.", "meshkit.networks.", "pricing.cost.", "pricing.price_list.")
_DOMAIN_MAY_IMPORT = frozenset({*sys.stdlib_module_names, "gen"})


def _sources(*folders: str) -> list[Path]:
    """Every Python file of these folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _offences(folders: tuple[str, ...], check: Callable[[Path], Iterable[object]]) -> dict[str, list[object]]:
    """What `check` finds in each file, by the file's name; files without a finding are left out."""
    found = {_name(path): list(check(path)) for path in _sources(*folders)}
    return {name: offences for name, offences in found.items() if offences}


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """The line and full name of every module that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _room(path: Path) -> str:
    """`adapters` for services/router/adapters/triton.py, `generate` for services/router/generate.py."""
    parts = path.relative_to(ROOT / "services").with_suffix("").parts
    return parts[1] if len(parts) > 1 else ""


def test_files_are_short() -> None:
    """At most 400 lines a file."""

    def check(path: Path) -> Iterator[int]:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > _MAX_FILE_LINES:
            yield lines

    assert _offences(_FOLDERS, check) == {}


def test_functions_are_short() -> None:
    """At most 50 lines a function, its docstring among them."""

    def check(path: Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > _MAX_FUNCTION_LINES:
                    yield f"line {node.lineno}: {node.name} has {lines} lines"

    assert _offences(_FOLDERS, check) == {}


def test_suppressions_say_what_and_why() -> None:
    """Every suppression names its rule and carries its reason on its line."""

    def check(path: Path) -> Iterator[str]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if _SUPPRESSION.search(line) and not _is_explained(line) and path != Path(__file__):
                yield f"line {number}: {line.strip()}"

    assert _offences(_FOLDERS, check) == {}


def _is_explained(line: str) -> bool:
    named = list(_NAMED.finditer(line))
    return bool(named) and re.search(r"[a-z]{3}", line[named[-1].end() :]) is not None


@pytest.mark.parametrize(
    ("line", "explained"),
    [
        ("x = 1  # noqa: S105 - no secret", True),
        ("x = 1  # noqa: S105, E501 - no secret", True),
        ("x = 1  # type: ignore[misc] # untyped upstream", True),
        ("x = 1  # type: ignore[misc] # noqa: S105 - untyped upstream", True),
        ("x = 1  # noqa: S105", False),
        ("x = 1  # noqa", False),
        ("x = 1  # noqa - because", False),
        ("x = 1  # type: ignore", False),
        ("x = 1  # type: ignore[misc]", False),
        ("x = 1  # type: ignore[misc] # noqa: S105", False),
    ],
)
def test_what_counts_as_explained(line: str, *, explained: bool) -> None:
    """The rule above tells a reason from none."""
    assert _is_explained(line) is explained


def test_grpc_keeps_to_its_rooms() -> None:
    """`grpc` is named only in meshkit, and in a service's servicer, adapters and bootstrap."""

    def check(path: Path) -> Iterator[str]:
        if path.is_relative_to(ROOT / "services") and _room(path) in _GRPC_ROOMS:
            return
        for line, name in _imports(path):
            if name.split(".")[0].startswith("grpc"):
                yield f"line {line}: {name}"

    assert _offences(("services", "dialects", "edge", "pricing"), check) == {}


def test_inner_rooms_know_no_outer_ones() -> None:
    """Use cases import no adapters, servicer or bootstrap; ports no use case either; domain nothing but domain."""

    def check(path: Path) -> Iterator[str]:
        room = _room(path)
        if room in _ABOVE_USE_CASES:
            return
        prefix = f"services.{path.relative_to(ROOT).parts[1]}."
        only = {"domain": {"domain"}, "ports": {"ports", "domain"}}.get(room)
        for line, name in _imports(path):
            reached = name.removeprefix(prefix).split(".")[0]
            if name.startswith(prefix) and (reached in _ABOVE_USE_CASES or (only and reached not in only)):
                yield f"line {line}: {name}"

    assert _offences(("services",), check) == {}


def test_domain_needs_nothing() -> None:
    """A domain imports the standard library, contract messages, itself, and what is as pure (networks, prices)."""

    def check(path: Path) -> Iterator[str]:
        own = (f"services.{path.relative_to(ROOT).parts[1]}.domain", *_PURE)
        for line, name in _imports(path) if _room(path) == "domain" else ():
            if name.split(".")[0] not in _DOMAIN_MAY_IMPORT and not name.startswith(own):
                yield f"line {line}: {name}"

    assert _offences(("services",), check) == {}


def test_services_are_named_once() -> None:
    """Every folder of services/ is a service of proto/, in snake case, with all the rooms."""
    declared = {
        re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        for proto in (ROOT / "proto" / "weir").rglob("*.proto")
        for name in re.findall(r"^service (\w+)", proto.read_text(encoding="utf-8"), re.MULTILINE)
    }
    folders = {path.parent.name: path.parent for path in (ROOT / "services").glob("*/__init__.py")}
    assert set(folders) <= declared
    for folder in folders.values():
        for room in ("__main__.py", "settings.py", "bootstrap.py", "servicer.py", "ports.py"):
            assert (folder / room).exists(), f"{folder.name} has no {room}"
