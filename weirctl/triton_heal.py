"""Looks after the running Triton: reloads models that died within it, and tells when only a new server helps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from weirctl.triton_probe import Health, TritonProbe
from weirctl.triton_settings import TritonSettings

_DEAD_LOOKS = 2
"""So many looks in a row must find a model dead: one may have met a moment of its own."""


def watch_triton(
    settings: TritonSettings, every_s: float, report: Callable[[str], None]
) -> Callable[[], Coroutine[Any, Any, str]]:
    """A watch (see Part.watch) that looks every `every_s` seconds."""

    async def watch() -> str:
        looks = 0
        async with TritonProbe(settings) as probe:
            while looks < _DEAD_LOOKS:
                await asyncio.sleep(every_s)
                findings = await probe.heal()
                for finding in findings:
                    if finding.health is Health.RELOADED:
                        report(f"triton: {finding.model} had died and was loaded again ({finding.detail})")
                dead = [finding for finding in findings if finding.health is Health.DEAD]
                looks = looks + 1 if dead else 0
        return f"{dead[0].model} does not answer: {dead[0].detail}"

    return watch
