"""`python -m tests.harness.scorecard`: runs the fault tests and says, row by row of docs/faults.md, what holds.

A row holds if it was shown at all, and every test that shows it passed. The last line is `N of M`; the exit status is 0
only if all of them hold and no other test failed.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"
_ROW = re.compile(r"^\| (?P<number>\d+) \| (?P<title>[^|]+) \|", re.MULTILINE)
_SHOWN_CHARS = 100
_SHOWN_LINES = 5
"""Of evidence, for a row that holds; both topologies say much the same."""


def rows() -> dict[int, str]:
    """Number and title of each row of the page."""
    page = PAGE.read_text(encoding="utf-8")
    return {int(row["number"]): row["title"].strip() for row in _ROW.finditer(page)}


@dataclass
class Row:
    """What the tests of one row said."""

    passed: int = 0
    not_passed: list[str] = field(default_factory=list)
    evidence: dict[str, None] = field(default_factory=dict)
    """In order, each once."""

    @property
    def holds(self) -> bool:
        """Shown, and by every test of it."""
        return self.passed > 0 and not self.not_passed


class Scorecard:
    """A pytest plugin that collects what reports say of rows."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = defaultdict(Row)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test's phase ended: its own, or a fixture's that broke. A skipped test shows nothing."""
        said = [(str(name), value) for name, value in report.user_properties]
        for number in {int(str(value)) for name, value in said if name == "fault"}:
            row = self.rows[number]
            if report.when == "call" and report.passed:
                row.passed += 1
                row.evidence.update((str(value), None) for name, value in said if name == "evidence")
            elif not report.passed:
                row.not_passed.append(report.nodeid)

    def lines(self, titles: dict[int, str]) -> list[str]:
        """The scorecard; its last line counts the rows that hold."""
        shown = []
        for number, title in titles.items():
            row = self.rows.get(number, Row())
            state = "holds" if row.holds else "FAILS" if row.not_passed else "not shown"
            shown.append(f"{number:>3}  {state:<9}  {title}  ({row.passed} tests)")
            shown += [f"       {text[:_SHOWN_CHARS]}" for text in list(row.evidence)[:_SHOWN_LINES]]
            shown += [f"       failed: {name}" for name in row.not_passed]
        held = sum(number in self.rows and self.rows[number].holds for number in titles)
        return [*shown, "", f"{held} of {len(titles)}"]


def main() -> int:
    """The exit status."""
    card, titles = Scorecard(), rows()
    options = ["tests/faults", "-q", "-n", "2", "--dist", "loadgroup", *sys.argv[1:]]
    status = pytest.main(options, plugins=[card])
    lines = card.lines(titles)
    sys.stdout.write("\n".join(["", *lines, ""]))
    sys.stdout.flush()
    return 0 if status == 0 and lines[-1] == f"{len(titles)} of {len(titles)}" else 1


if __name__ == "__main__":
    sys.exit(main())
