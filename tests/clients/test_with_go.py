"""The typed contract from Go, by a client generated from proto/: one test for each of its own."""

from __future__ import annotations

import pytest

from tests.clients.foreign import Outcome, Toolchains, go_tests, run_go
from tests.harness.running_weir import RunningWeir

pytestmark = pytest.mark.timeout(600)  # it is compiled meanwhile: two minutes the first time, seconds later


@pytest.fixture(scope="module")
def outcomes(weir: RunningWeir, toolchains: Toolchains) -> dict[str, Outcome]:
    """What became of each test of the Go client."""
    return run_go(toolchains.get("go"), weir)


@pytest.mark.parametrize("name", go_tests())
def test_go(outcomes: dict[str, Outcome], name: str) -> None:
    """A test of go/weir_test.go."""
    assert name in outcomes, outcomes
    assert outcomes[name].passed, outcomes[name].output
