"""Looks after the running Triton: reloads a model that died within it, and tells when only a new server helps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from weirctl.triton_probe import Health, TritonProbe
from weirctl.triton_settings import TritonSettings

_DEAD_LOOKS = 2
"""So many looks in a row must find it dead: one may have met a moment of its own."""


def watch_triton(
    settings: TritonSettings, every_s: float, report: Callable[[str], None]
) -> Callable[[], Coroutine[Any, Any, str]]:
    """A watch (see Part.watch) that looks every `every_s` seconds."""

    async def watch() -> str:
        dead = 0
        async with TritonProbe(settings) as probe:
            while dead < _DEAD_LOOKS:
                await asyncio.sleep(every_s)
                finding = await probe.heal()
                dead = dead + 1 if finding.health is Health.DEAD else 0
                if finding.health is Health.RELOADED:
                    report(f"triton: the model had died and was loaded again ({finding.detail})")
        return f"the model does not answer: {finding.detail}"

    return watch
