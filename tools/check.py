"""`make check`: everything that can be said of the code without running it. All of it runs, two at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_BIN = Path(sys.executable).parent


class Check(NamedTuple):
    """One program; it passes if it exits 0."""

    name: str
    command: Sequence[str]


class Verdict(NamedTuple):
    """How it went."""

    name: str
    passed: bool
    seconds: float
    output: str


def checks() -> list[Check]:
    """All of them, the slowest first."""

    def own(name: str) -> str:
        return str(_BIN / name)

    return [
        Check("types", [own("mypy")]),
        Check("generated code is up to date", [sys.executable, "-m", "tools.generate", "--check"]),
        Check("page of errors is up to date", [sys.executable, "-m", "tools.error_table", "--check"]),
        Check(
            "page of parameters is up to date", [sys.executable, "-m", "tools.compatibility_table", "--check"]
        ),
        Check(
            "schema of weir.yaml is up to date", [sys.executable, "-m", "tools.settings_schema", "--check"]
        ),
        Check("dependencies", [sys.executable, "-m", "tools.dependency_audit"]),
        Check("lint", [own("ruff"), "check", "--quiet"]),
        Check("format", [own("ruff"), "format", "--check", "--quiet"]),
        Check("imports", [own("lint-imports")]),
        Check("contracts: lint", [own("buf"), "lint"]),
        Check("contracts: format", [own("buf"), "format", "--diff", "--exit-code"]),
        Check("contracts: nothing breaks", [own("buf"), "breaking", "--against", "proto/released.binpb"]),
    ]


def run(check: Check) -> Verdict:
    """Runs one in the project's folder."""
    begun = monotonic()
    done = subprocess.run(
        check.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return Verdict(check.name, done.returncode == 0, monotonic() - begun, done.stdout)


def main() -> int:
    """The exit status: 1 if any failed."""
    failed = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for verdict in pool.map(run, checks()):
            sys.stdout.write(
                f"{'ok  ' if verdict.passed else 'FAIL'} {verdict.name} ({verdict.seconds:.1f} s)\n"
            )
            if not verdict.passed:
                failed += 1
                sys.stdout.write(f"{verdict.output.rstrip()}\n")
            sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
