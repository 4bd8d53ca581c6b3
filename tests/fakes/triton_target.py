"""The router's adapter of a generating model, in front of the fake Triton."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

from dialects.chat_request import read
from dialects.request import Request
from meshkit.channel import open_channel
from services.router.adapters.triton import TritonTarget
from services.router.ports import Piece
from tests.fakes.router import spec
from tests.fakes.triton import FakeTriton, Say

PROBE_S = 0.05
HI = (Say("Hel", 1, input_tokens=9), Say("lo", 2, input_tokens=9), Say(final=True))
"""A whole answer of three tokens."""


@asynccontextmanager
async def target(fake: FakeTriton) -> AsyncIterator[TritonTarget]:
    """The adapter, connected."""
    channel = open_channel(fake.address)
    yield TritonTarget(spec("local", local=True), channel, "chatml", timedelta(seconds=PROBE_S), bytes)
    await channel.close()


def ask(**fields: Any) -> Request:
    """A chat request."""
    return read(json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode())


async def pieces(fake: FakeTriton, request: Request, prefill: str = "") -> list[Piece]:
    """Every piece of one answer."""
    async with (
        target(fake) as local,
        aclosing(local.generate(request, "req_1", stream=True, prefill=prefill)) as answer,
    ):
        return [piece async for piece in answer]


def text_of(answer: list[Piece]) -> str:
    """All of its text."""
    return "".join(piece.text for piece in answer)
