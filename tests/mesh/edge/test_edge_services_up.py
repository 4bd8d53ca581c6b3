"""A service behind the gateway of a whole Weir, whatever the transport to Auth and wherever Auth runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.harness.running_weir import RunningWeir, free_configuration
from tests.mesh.edge.guarded import Upstream, upstream

PROVIDER = {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "FAKE_API_KEY"}


@pytest.fixture
def home() -> Iterator[Path]:
    """A WEIR_HOME with a short path, as Unix sockets need it."""
    folder = Path(tempfile.mkdtemp(prefix="weir-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def docs() -> AsyncIterator[Upstream]:
    """The service."""
    async with upstream() as found:
        yield found


@pytest.mark.parametrize(
    "how",
    [
        {"transport": "mtls"},
        {"transport": "uds"},
        {"transport": "mtls", "topology": "compact"},
    ],
    ids=["mtls", "uds", "mtls-compact"],
)
async def test_the_demo_key_passes_and_nobody_else(home: Path, docs: Upstream, how: dict[str, str]) -> None:
    """Auth is asked over its own transport; without a key it is 401 and the service sees nothing."""
    document = free_configuration(
        providers={"fake": PROVIDER},
        targets={"cloud": {"kind": "cloud", "provider": "fake", "model": "gpt-4o-mini"}},
        edge={"services": {"docs": {"prefix": "/docs/", "address": docs.address, "strip_prefix": True}}},
        **how,
    )
    weir = RunningWeir(home, document, environment={"FAKE_API_KEY": "sk-fake"})
    weir.start()
    try:
        async with aiohttp.ClientSession(f"http://{weir.edge}") as client:
            async with client.get("/docs/page") as answer:
                assert answer.status == 401, await answer.text()
            assert not docs.received
            async with client.get("/docs/page", headers={"authorization": f"Bearer {weir.key}"}) as answer:
                assert answer.status == 200, await answer.text()
        assert docs.lines[0] == "get /page http/1.1"
        assert docs.header("x-weir-key-id") == [weir.key.split("_")[1]]
    finally:
        assert weir.stop() == 0
