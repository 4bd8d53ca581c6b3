"""The scorecard and the page of faults say what the tests show."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.harness.scorecard import PAGE, Scorecard, rows

TESTS = Path(__file__).resolve().parents[1] / "faults"
LATER = {26, 27}
"""Rows of the design's list that the ledger's own work brings."""


def report(number: int, *, passed: bool, when: str = "call", evidence: str = "seen") -> Any:
    """As pytest makes it of one test."""
    said = [("fault", number), ("evidence", evidence)]
    return SimpleNamespace(nodeid=f"test_{number}", when=when, passed=passed, user_properties=said)


def marked() -> Iterator[tuple[int, str]]:
    """(row, file) of every `pytest.mark.fault(row)` in tests/faults."""
    for path in TESTS.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                yield int(ast.unparse(node.args[0])), path.name


def test_every_row_has_its_tests() -> None:
    """Rows 1 to 28 but the later ones; each is shown in the file that the page names, and no other is."""
    assert set(rows()) == set(range(1, 29)) - LATER
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    page = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    found = set(marked())
    assert {number for number, _ in found} == set(rows())
    for number in rows():
        named = {name for row, name in found if row == number}
        assert all(f"`{name}`" in page[str(number)] for name in named), (number, named)


def test_a_row_holds_by_all_its_tests() -> None:
    """One that failed, or a fixture that broke, takes it away; a row without a test is not shown."""
    card = Scorecard()
    for said in (
        report(1, passed=True, evidence="two attempts"),
        report(2, passed=True),
        report(2, passed=False),
        report(3, passed=True),
        report(3, passed=False, when="teardown"),
    ):
        card.pytest_runtest_logreport(said)
    lines = card.lines({1: "one", 2: "two", 3: "three", 4: "four"})
    assert [line.split()[1] for line in lines if line.strip()[:1].isdigit() and "of" not in line] == [
        "holds",
        "FAILS",
        "FAILS",
        "not",
    ]
    assert "       two attempts" in lines
    assert "       failed: test_2" in lines
    assert lines[-1] == "1 of 4"


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_other_phases_are_no_tests(when: str) -> None:
    """Only the test itself shows a row."""
    card = Scorecard()
    card.pytest_runtest_logreport(report(1, passed=True, when=when))
    assert card.lines({1: "one"})[-1] == "0 of 1"
