"""Auth's store of samples in memory. It passes the suite of the real one (tests/ports/test_auth_samples.py)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from gen.weir.auth.v1 import Sample


class FakeSampleStore:
    """services.auth.ports.SampleStore."""

    def __init__(self) -> None:
        self.kept: list[Sample] = []

    async def add(self, samples: Sequence[Sample]) -> None:
        """Keeps them."""
        self.kept += samples

    async def newest(self, key_id: str, most: int) -> list[Sample]:
        """The newest first."""
        return [sample for sample in reversed(self.kept) if key_id in {"", sample.key_id}][:most]

    async def forget(self, before: datetime, most: int) -> int:
        """Ends at most so many that began before; how many."""
        old = [sample for sample in self.kept if sample.at is not None and sample.at < before][:most]
        self.kept = [sample for sample in self.kept if sample not in old]
        return len(old)
