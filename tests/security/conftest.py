"""One running Weir for all security tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.stronghold import Stronghold, running_stronghold


@pytest.fixture(scope="session")
def stronghold() -> Iterator[Stronghold]:
    """Two router workers behind the edge, separate services, one issuer."""
    with running_stronghold() as running:
        yield running
