"""What the reading of tokens needs from outside."""

from __future__ import annotations

from typing import Protocol


class KeySourceError(Exception):
    """The keys cannot be had; its text says why and may be logged."""


class KeySource(Protocol):
    """Where one issuer publishes its keys."""

    async def fetch(self) -> bytes:
        """The JWK set as it is now, unread.

        Raises KeySourceError. Ends within a limit of its own, and reads a limited number of bytes.
        """
