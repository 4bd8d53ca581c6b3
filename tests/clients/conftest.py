"""One running Weir and one provider for all tests of clients."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.clients.configuration import configuration
from tests.clients.foreign import Toolchains
from tests.clients.polite_provider import PoliteProvider
from tests.clients.schema_check import SchemaCheck, checked_async_client, checked_client
from tests.harness.running_weir import RunningWeir


@pytest.fixture(scope="session")
def provider() -> Iterator[PoliteProvider]:
    """The provider behind every cloud target."""
    with PoliteProvider() as running:
        yield running


@pytest.fixture(scope="session")
def toolchains(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Toolchains]:
    """What clients in other languages need, on its way from the session's first moment where such tests are to run."""
    files = {item.path.name for item in request.session.items}
    wanted = [name for name in ("node", "go") if files & {f"test_with_{name}.py", "test_documentation.py"}]
    made = Toolchains(tmp_path_factory.mktemp("toolchains"), wanted)
    yield made
    made.close()


@pytest.fixture(scope="session")
def weir(provider: PoliteProvider, toolchains: Toolchains) -> Iterator[RunningWeir]:
    """A whole Weir with the local models and the polite provider."""
    home = Path(tempfile.mkdtemp(prefix="weir-clients-"))
    home.chmod(0o711)
    environment = {"POLITE_API_KEY": "sk-polite-secret"}
    running = RunningWeir(home, configuration(provider), environment=environment)
    try:
        running.start()
        running.await_local()
        yield running
    finally:
        if running.process is not None:
            running.stop()
        shutil.rmtree(home)


@pytest.fixture
def check() -> Iterator[SchemaCheck]:
    """Every answer to `client` and `async_client` is held against the SDK's models; one that does not fit fails."""
    found = SchemaCheck()
    yield found
    assert not found.faults, "\n".join(found.faults)


@pytest.fixture
def client(weir: RunningWeir, check: SchemaCheck) -> Iterator[openai.OpenAI]:
    """The official client."""
    options: Any = {"base_url": weir.base_url, "api_key": weir.key, "max_retries": 0, "timeout": 60}
    with openai.OpenAI(http_client=checked_client(check), **options) as made:
        yield made


@pytest_asyncio.fixture
async def async_client(weir: RunningWeir, check: SchemaCheck) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official asynchronous client."""
    options: Any = {"base_url": weir.base_url, "api_key": weir.key, "max_retries": 0, "timeout": 60}
    async with openai.AsyncOpenAI(http_client=checked_async_client(check), **options) as made:
        yield made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They share one Weir, so they go to one pytest worker."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("clients"))
