"""One running Weir for all security tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.stronghold import Stronghold, running_stronghold


@pytest.fixture(scope="session")
def stronghold() -> Iterator[Stronghold]:
    """Two router workers behind the edge, separate services, one issuer."""
    # Tests try more bad keys a second than people do.
    with running_stronghold(flood_answers_per_s=1_000) as running:
        yield running
