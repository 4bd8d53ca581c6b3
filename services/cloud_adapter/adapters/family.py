"""What sets one family of providers apart from another: addresses and headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from openai import AsyncOpenAI

from services.cloud_adapter.ports import Question


class Family(Protocol):
    """How one provider of the family is spoken to."""

    def addressed(self, question: Question) -> tuple[str, bytes]:
        """The URL that a question goes to, and its body. Raises UnreachableError if it has no address."""

    def headers(self, secret: str) -> Mapping[str, str]:
        """Every header that requests with this secret have in common; an empty secret is not shown."""

    async def close(self) -> None:
        """Lets go of what the SDK holds."""


UNSHOWN: Final = "none"
"""The SDK refuses to be made without a key; nothing is sent of this one."""


def common_headers(sdk: AsyncOpenAI, named: Mapping[str, str | None]) -> dict[str, str]:
    """The headers of every request, without those in which the SDK describes this machine.

    Args:
        sdk: the family's client.
        named: further ones; those that are None are left out.
    """
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        # Decompression costs time and opens the door to bombs; an answer that is compressed all the same is read.
        "accept-encoding": "identity",
        "user-agent": sdk.user_agent,
    }
    headers.update({name: value for name, value in named.items() if value is not None})
    return headers
