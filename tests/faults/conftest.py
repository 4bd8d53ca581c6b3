"""One Weir per topology for all fault tests, and what they tell the scorecard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.marks import Evidence
from tests.harness.evidence import tell
from tests.harness.fault_rig import Rig, running_rig

TOPOLOGIES = ("separate", "compact")


def pytest_configure(config: pytest.Config) -> None:
    """Says which marks there are."""
    config.addinivalue_line("markers", "fault(number): it shows a row of docs/faults.md")
    config.addinivalue_line(
        "markers", "separate_only: one topology shows it, or only that one has what it needs"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of a rig runs on both topologies unless it is marked."""
    if "rig" in metafunc.fixturenames:
        alone = metafunc.definition.get_closest_marker("separate_only") is not None
        metafunc.parametrize("rig", TOPOLOGIES[:1] if alone else TOPOLOGIES, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one topology go to one pytest worker; the row travels with the report."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and "rig" in callspec.params:
            item.add_marker(pytest.mark.xdist_group(f"faults-{callspec.params['rig']}"))
        item.user_properties.extend(("fault", mark.args[0]) for mark in item.iter_markers("fault"))


@pytest.fixture(scope="session")
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A running Weir with real Envoy, PostgreSQL and, where separate, Triton."""
    with running_rig(request.param) as running:
        yield running


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """Takes a short line of what was seen."""

    def take(text: str) -> None:
        tell(text)
        request.node.user_properties.append(("evidence", text))

    return take
