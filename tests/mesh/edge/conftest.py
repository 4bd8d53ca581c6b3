"""One Envoy and one router worker per test module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
import pytest_asyncio

from meshkit.channel import open_channel
from tests.mesh.edge.rig import Edge, edge, free_ports
from tests.mesh.edge.stand_in import Script, worker


@pytest.fixture(scope="module")
def shared_script() -> Script:
    """The script of the module's worker."""
    return Script()


@pytest.fixture
def script(shared_script: Script) -> Iterator[Script]:
    """The same, empty."""
    shared_script.reset()
    yield shared_script
    shared_script.release.set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(shared_script: Script, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """An edge before one healthy worker."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    async with (
        worker(address, shared_script),
        edge(tmp_path_factory.mktemp("edge"), [address]) as found,
    ):
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def channel(running: Edge) -> AsyncIterator[grpc.aio.Channel]:
    """A native gRPC client's channel to the edge."""
    async with open_channel(running.address) as found:
        yield found
