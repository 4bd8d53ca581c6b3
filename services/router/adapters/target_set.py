"""The targets that a configuration names: made, followed by their probes, and closed when nobody uses them any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final, Protocol

import grpc

from gen.weir.cloud.v1.service import CloudAdapterClient
from gen.weir.router.v1 import Task
from meshkit.channel import open_channel
from services.router.adapters.cloud import CloudTarget, ProviderWatch
from services.router.adapters.triton import TritonTarget
from services.router.adapters.triton_embed import TritonEmbedTarget
from services.router.ports import Target
from services.router.target_settings import TargetSettings, TritonTargetSettings, target_spec

UP_WITHIN_S: Final = 3.0
"""How long new targets may take to come up before requests are sent to them all the same; longer than another process
takes to see the same change of the file."""
_LOOK_AGAIN_S: Final = 0.2


class Watch(Protocol):
    """Something that is followed for as long as it is used."""

    async def watch(self) -> None:
        """Follows until cancelled."""


class _Probe(Watch, Protocol):
    async def probe(self) -> None:
        """Looks once."""


class HeldTarget:
    """One target with what it holds open."""

    def __init__(
        self,
        configured: TargetSettings,
        target: Target,
        probe: _Probe | None = None,
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        self.configured: Final = configured
        self.target: Final = target
        self.probe: Final = probe
        self._channel = channel
        self._task: asyncio.Task[None] | None = None

    def follow(self, kept_up: Callable[[Watch], Awaitable[None]]) -> None:
        """Begins to probe it, unless that has begun; `kept_up` runs a watch until cancelled."""
        if self.probe is not None and self._task is None:
            self._task = asyncio.ensure_future(kept_up(self.probe))

    async def close(self) -> None:
        """Ends its probes and its connections; requests that still run on it break off."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._channel is not None:
            await self._channel.close()


class TargetMaker:
    """Makes targets, and keeps those whose settings stay as they are.

    Args:
        triton: `host:port` of the Triton that a target without an endpoint means.
        every: how often targets are probed.
    """

    def __init__(self, client: CloudAdapterClient, triton: str, every: timedelta) -> None:
        self._client = client
        self._triton = triton
        self._every = every
        self.providers: Final = ProviderWatch(client, [], every)

    def made(
        self, configured: Mapping[str, TargetSettings], before: Mapping[str, HeldTarget]
    ) -> dict[str, HeldTarget]:
        """By name; those of `before` where their settings are the same, else new ones. Nothing is connected yet."""
        return {
            name: held
            if (held := before.get(name)) is not None and held.configured == settings
            else self._new(name, settings)
            for name, settings in configured.items()
        }

    def follow_providers(self, *sets: Mapping[str, HeldTarget]) -> None:
        """From now on these sets' targets are told which providers can be used."""
        targets = {id(held.target): held.target for one in sets for held in one.values()}
        self.providers.targets = [one for one in targets.values() if isinstance(one, CloudTarget)]

    async def probe(self, held: Sequence[HeldTarget]) -> None:
        """Looks once at each."""
        own = [one.probe.probe() for one in held if one.probe is not None]
        await asyncio.gather(self.providers.probe(), *own)

    async def until_up(self, held: Sequence[HeldTarget]) -> None:
        """Returns when all of them are up, at the latest after UP_WITHIN_S and one probe."""
        clock = asyncio.get_running_loop()
        ends_s = clock.time() + UP_WITHIN_S
        while held:
            await self.probe(held)
            if clock.time() > ends_s or all(one.target.is_up() for one in held):
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _new(self, name: str, settings: TargetSettings) -> HeldTarget:
        spec = target_spec(name, settings)
        if not isinstance(settings, TritonTargetSettings):
            return HeldTarget(settings, CloudTarget(spec, self._client))
        channel = open_channel(settings.endpoint or self._triton)
        target: TritonTarget | TritonEmbedTarget = (
            TritonEmbedTarget(spec, channel, self._every)
            if spec.task is Task.EMBED
            else TritonTarget(spec, channel, settings.chat_template, self._every)
        )
        return HeldTarget(settings, target, target, channel)
