"""The official openai package for Node, and the typed contract with grpc-js and over gRPC-Web: one test for each."""

from __future__ import annotations

import pytest

from tests.clients.foreign import Outcome, Toolchains, node_tests, run_node
from tests.harness.running_weir import RunningWeir

OPENAI = "openai.test.mjs"
GRPC = "grpc.test.mjs"
GRPC_WEB = "grpc-web.test.mjs"
pytestmark = pytest.mark.timeout(600)  # the packages are fetched meanwhile


@pytest.fixture(scope="module")
def openai_outcomes(weir: RunningWeir, toolchains: Toolchains) -> dict[str, Outcome]:
    """What became of each test of the openai package."""
    return run_node(toolchains.get("node"), OPENAI, weir)


@pytest.fixture(scope="module")
def grpc_outcomes(weir: RunningWeir, toolchains: Toolchains) -> dict[str, Outcome]:
    """What became of each test of grpc-js."""
    return run_node(toolchains.get("node"), GRPC, weir)


@pytest.fixture(scope="module")
def grpc_web_outcomes(weir: RunningWeir, toolchains: Toolchains) -> dict[str, Outcome]:
    """What became of each test of Connect's gRPC-Web client."""
    return run_node(toolchains.get("node"), GRPC_WEB, weir)


@pytest.mark.parametrize("name", node_tests(OPENAI))
def test_openai(openai_outcomes: dict[str, Outcome], name: str) -> None:
    """A test of node/openai.test.mjs."""
    assert name in openai_outcomes, openai_outcomes
    assert openai_outcomes[name].passed, openai_outcomes[name].output


@pytest.mark.parametrize("name", node_tests(GRPC))
def test_grpc(grpc_outcomes: dict[str, Outcome], name: str) -> None:
    """A test of node/grpc.test.mjs."""
    assert name in grpc_outcomes, grpc_outcomes
    assert grpc_outcomes[name].passed, grpc_outcomes[name].output


@pytest.mark.parametrize("name", node_tests(GRPC_WEB))
def test_grpc_web(grpc_web_outcomes: dict[str, Outcome], name: str) -> None:
    """A test of node/grpc-web.test.mjs."""
    assert name in grpc_web_outcomes, grpc_web_outcomes
    assert grpc_web_outcomes[name].passed, grpc_web_outcomes[name].output
