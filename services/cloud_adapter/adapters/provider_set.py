"""The configured providers, exchanged while requests run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

from services.cloud_adapter.adapters.http import HttpProvider

ASKED_STILL_S: Final = 10.0
"""How long a provider that left the settings may still be asked: routers see the change at another moment."""
RETIRED_FOR_S: Final = 900.0
"""How long its requests may go on: longer than an answer may take by default."""


class ProviderSet(Mapping[str, HttpProvider]):
    """Providers by name, in the order of the settings.

    One that left the settings is still found by its name for a while, but not listed.
    """

    def __init__(self, providers: Mapping[str, HttpProvider]) -> None:
        self._now = dict(providers)
        self._left: dict[str, HttpProvider] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    def __getitem__(self, name: str) -> HttpProvider:
        """Raises KeyError."""
        found = self._now.get(name)
        return self._left[name] if found is None else found

    def __iter__(self) -> Iterator[str]:
        """The names that are configured."""
        return iter(self._now)

    def __len__(self) -> int:
        """How many are configured."""
        return len(self._now)

    def joined(self, new: Mapping[str, HttpProvider]) -> dict[str, HttpProvider]:
        """`new`, with those of now wherever nothing about them changed: they keep their connections and rests."""
        return {
            name: known
            if (known := self._now.get(name)) is not None and known.is_like(provider)
            else provider
            for name, provider in new.items()
        }

    async def open(self) -> None:
        """Makes each ready."""
        for provider in self._now.values():
            await provider.open()

    async def take_over(self, providers: Mapping[str, HttpProvider]) -> None:
        """Asks these from now on. Requests under way end where they began."""
        for name, provider in providers.items():
            if self._now.get(name) is not provider:
                await provider.open()
        former, self._now = self._now, dict(providers)
        for name, provider in former.items():
            if providers.get(name) is not provider:
                self._left[name] = provider
                task = asyncio.create_task(self._retire(name, provider))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """Ends every connection."""
        for task in list(self._retiring):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for provider in self._now.values():
            await provider.close()

    async def _retire(self, name: str, provider: HttpProvider) -> None:
        try:
            await asyncio.sleep(ASKED_STILL_S)
            if self._left.get(name) is provider:
                del self._left[name]
            await provider.idle(RETIRED_FOR_S)
        finally:
            await provider.close()
