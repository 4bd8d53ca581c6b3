"""Where the router's adapters meet its ports."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import grpc
from prometheus_client import CollectorRegistry

from gen.rpc import Transport
from gen.weir.auth.v1.service import AuthClient
from gen.weir.cloud.v1.service import CloudAdapterClient
from gen.weir.ledger.v1.service import LedgerClient
from gen.weir.router.v1 import Task
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import UpstreamError
from meshkit.ids import uuid7
from meshkit.serving import Servicer
from meshkit.telemetry import Logger
from pricing.prices_file import load_prices
from services.router.adapters.attempts import Attempts
from services.router.adapters.cloud import CloudTarget, ProviderWatch
from services.router.adapters.key_set import KeySet
from services.router.adapters.triton import TritonTarget
from services.router.adapters.triton_embed import TritonEmbedTarget
from services.router.answer import Answer
from services.router.ask_auth import AskAuth
from services.router.authenticate import Authenticate
from services.router.chat_completions import ChatCompletions
from services.router.clock import SystemClock
from services.router.completions import Completions
from services.router.deliver import Deliver
from services.router.door import Door
from services.router.embed import Embed
from services.router.embeddings import Embeddings
from services.router.generate import Generate
from services.router.get_model import GetModel
from services.router.list_models import ListModels
from services.router.metrics import RouterMetrics
from services.router.model_cards import ModelCards
from services.router.ports import Target
from services.router.refusals import Refusals
from services.router.responses import Responses
from services.router.run_plan import RunPlan, Surroundings
from services.router.servicer import OpenAIFace, OpenAIUseCases, TypedRouter
from services.router.settings import RouterSettings
from services.router.target_settings import TritonTargetSettings, target_spec
from services.router.target_state import TargetState


class _Watch(Protocol):
    async def watch(self) -> None:
        """Follows something until cancelled."""


class _Probe(_Watch, Protocol):
    async def probe(self) -> None:
        """Looks once."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """How the other services are reached: over channels, or inside this process."""

    auth: Transport
    cloud_adapter: Transport
    ledger: Transport


def neighbours_over_channels(settings: RouterSettings, exits: AsyncExitStack) -> Neighbours:
    """A channel to each neighbour; `exits` closes them. Raises meshkit.certificates.CertificateUnusable."""

    def transport(service: Any) -> ChannelTransport:
        channel = open_channel(settings.address(service), settings.towards(service, "router"))
        exits.push_async_callback(channel.close)
        return ChannelTransport(channel, mesh_codec())

    return Neighbours(transport("auth"), transport("cloud_adapter"), transport("ledger"))


class RouterService:
    """The router, ready to be mounted on a server. Made by `build`."""

    def __init__(
        self,
        settings: RouterSettings,
        neighbours: Neighbours,
        registry: CollectorRegistry,
        log: Logger,
    ) -> None:
        block = settings.router
        self._block = block
        self._log = log
        self._exits = AsyncExitStack()
        self._clock = SystemClock()
        self._attempts = Attempts(
            settings.home,
            LedgerClient(neighbours.ledger),
            block.spool,
            block.feed,
            mesh_codec(),
            registry,
            log,
        )
        self._keys = KeySet(
            AuthClient(neighbours.auth),
            timedelta(seconds=block.keyset_silence_s),
            timedelta(seconds=block.auth_ask_s),
            time.monotonic,
            log,
        )
        self._refusals = Refusals(self._keys.report_refusals, self._clock, block.identity, log)
        self._cloud = CloudAdapterClient(neighbours.cloud_adapter)
        self._targets = self._make_targets(settings)
        self.servicers: Sequence[Servicer] = self._make_servicers(settings, RouterMetrics(registry))

    async def start(self) -> None:
        """Adopts spools, loads the key set, probes the targets. Raises UpstreamError if Auth does not answer."""
        async with AsyncExitStack() as exits:
            for channel in self._channels:
                exits.push_async_callback(channel.close)
            await self._attempts.start()
            exits.push_async_callback(self._attempts.stop, timedelta(seconds=self._block.feed_stop_s))
            watches: list[_Watch] = [self._keys, self._refusals, *self._probes]
            for watch in watches:
                exits.push_async_callback(_cancel, asyncio.create_task(self._kept_up(watch)))
            try:
                async with asyncio.timeout(self._block.keyset_load_s):
                    await self._keys.loaded()
            except TimeoutError:
                raise UpstreamError(f"auth sent no key set within {self._block.keyset_load_s:g} s") from None
            # Else the first requests would find every target down.
            await asyncio.gather(*(probe.probe() for probe in self._probes))
            self._exits = exits.pop_all()

    async def _kept_up(self, watch: _Watch) -> None:
        """Runs a watch until cancelled; one that breaks is begun anew: without it the router knows old things only."""
        while True:
            try:
                await watch.watch()
            except Exception as error:  # noqa: BLE001 - whatever it was, it is logged, and nobody else would notice
                self._log.exception("a watch broke", error, watch=type(watch).__name__)
            await asyncio.sleep(self._block.probe_s)

    async def stop(self) -> None:
        """Ends the watches, sends what the ledger still takes, closes every channel."""
        await self._exits.aclose()

    def _make_targets(self, settings: RouterSettings) -> dict[str, Target]:
        self._channels: list[grpc.aio.Channel] = []
        self._probes: list[_Probe] = []
        clouds: list[CloudTarget] = []
        probe = timedelta(seconds=self._block.probe_s)
        targets: dict[str, Target] = {}
        for name, configured in settings.targets.items():
            spec = target_spec(name, configured)
            if isinstance(configured, TritonTargetSettings):
                channel = open_channel(configured.endpoint or f"127.0.0.1:{settings.ports.triton_grpc}")
                self._channels.append(channel)
                triton: TritonTarget | TritonEmbedTarget = (
                    TritonEmbedTarget(spec, channel, probe)
                    if spec.task is Task.EMBED
                    else TritonTarget(spec, channel, configured.chat_template, probe)
                )
                self._probes.append(triton)
                targets[name] = triton
            else:
                cloud = CloudTarget(spec, self._cloud)
                clouds.append(cloud)
                targets[name] = cloud
        if clouds:
            self._probes.append(ProviderWatch(self._cloud, clouds, probe))
        return targets

    def _make_servicers(self, settings: RouterSettings, metrics: RouterMetrics) -> Sequence[Servicer]:
        models = settings.model_specs()
        prices = load_prices(settings.ledger.prices_file)
        states = {name: TargetState(target, self._clock) for name, target in self._targets.items()}
        for name, state in states.items():
            metrics.follow(name, state.target.is_up, state.is_left_alone)
        runner = RunPlan(
            Surroundings(
                states,
                self._attempts.log,
                prices,
                self._clock,
                uuid7,
                random.random,
                metrics,
                self._log,
                self._block.max_attempts,
            )
        )
        answer = Answer(models, settings.default_model, states, runner, random.random)
        deliver = Deliver(answer)
        door = self._make_door()
        cards = ModelCards(models, states, prices, self._clock, int(time.time()))
        return (
            TypedRouter(door, self._clock, Generate(answer), Embed(answer), ListModels(cards)),
            OpenAIFace(
                door,
                self._clock,
                OpenAIUseCases(
                    ChatCompletions(deliver),
                    Completions(deliver),
                    Responses(deliver),
                    Embeddings(deliver),
                    ListModels(cards),
                    GetModel(cards),
                ),
                self._block.max_body_bytes,
            ),
        )

    def _make_door(self) -> Door:
        block, identity = self._block, self._block.identity
        ask = AskAuth(
            self._keys.ask, self._clock, identity, timedelta(seconds=block.refused_for_s), block.refused_keys
        )
        authenticate = Authenticate(
            self._keys,
            ask,
            self._clock,
            timedelta(seconds=block.keyset_max_stale_s),
            timedelta(seconds=identity.unknown_fresh_s),
            block.remembered_callers,
        )
        return Door(authenticate, self._refusals)


def build(
    settings: RouterSettings, neighbours: Neighbours, registry: CollectorRegistry, log: Logger
) -> RouterService:
    """One router worker."""
    return RouterService(settings, neighbours, registry, log)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
