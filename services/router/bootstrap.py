"""Where the router's adapters meet its ports."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prometheus_client import CollectorRegistry

from gen.rpc import Transport
from gen.weir.auth.v1.service import AuthClient
from gen.weir.cloud.v1.service import CloudAdapterClient
from gen.weir.ledger.v1.service import LedgerClient
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import UpstreamError
from meshkit.ids import uuid7
from meshkit.reload import TakeOver
from meshkit.serving import Servicer
from meshkit.telemetry import Logger
from pricing.prices_file import load_prices
from services.router.adapters.attempts import Attempts
from services.router.adapters.key_set import KeySet
from services.router.adapters.rates import AuthRates
from services.router.adapters.target_set import HeldTarget, TargetMaker, Watch
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
from services.router.rates.admission import Admission
from services.router.rates.leases import Leases
from services.router.rates.limited_answer import LimitedAnswer
from services.router.rates.metrics import RateMetrics
from services.router.rates.subjects import Subjects
from services.router.refusals import Refusals
from services.router.responses import Responses
from services.router.routing import Routing
from services.router.run_plan import Surroundings
from services.router.sampled_answer import SampledAnswer
from services.router.samples import Samples
from services.router.servicer import OpenAIFace, OpenAIUseCases, TypedRouter
from services.router.settings import RouterSettings
from services.router.target_state import TargetState

RETIRED_FOR_S = 900.0
"""How long requests may go on after their targets left the settings: longer than an answer may take by default."""


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
        self._samples = Samples(self._keys.keep_samples, self._clock, log)
        self._rate_metrics = RateMetrics(registry)
        self._leases = Leases(
            AuthRates(AuthClient(neighbours.auth), timedelta(seconds=block.rates.exchange_s)),
            block.rates,
            self._clock,
            lambda: uuid7().hex,
            settings.workers,
            self._rate_metrics,
            log,
        )
        self._cloud = CloudAdapterClient(neighbours.cloud_adapter)
        triton = f"127.0.0.1:{settings.ports.triton_grpc}"
        self._maker = TargetMaker(self._cloud, triton, timedelta(seconds=block.probe_s))
        self._targets = self._maker.made(settings.targets, {})
        self._retiring: set[asyncio.Task[None]] = set()
        self._routing = self._make_routing(settings, RouterMetrics(registry))
        self._limits = self._limited(settings)
        self.servicers: Sequence[Servicer] = self._make_servicers()

    async def start(self) -> None:
        """Adopts spools, loads the key set, probes the targets. Raises UpstreamError if Auth does not answer."""
        async with AsyncExitStack() as exits:
            exits.push_async_callback(self._close_targets)
            await self._attempts.start()
            exits.push_async_callback(self._attempts.stop, timedelta(seconds=self._block.feed_stop_s))
            exits.push_async_callback(self._leases.stop)
            # What was noted since the last report: no refusal is lost to a restart.
            exits.push_async_callback(self._refusals.report)
            exits.push_async_callback(self._samples.send)
            watches: list[Watch] = [
                self._keys,
                self._refusals,
                self._samples,
                self._leases,
                self._maker.providers,
            ]
            for watch in watches:
                exits.push_async_callback(_cancel, asyncio.create_task(self._kept_up(watch)))
            try:
                async with asyncio.timeout(self._block.keyset_load_s):
                    await self._keys.loaded()
            except TimeoutError:
                raise UpstreamError(f"auth sent no key set within {self._block.keyset_load_s:g} s") from None
            # Else the first requests would find every target down.
            self._maker.follow_providers(self._targets)
            await self._maker.probe(list(self._targets.values()))
            self._follow_targets()
            self._exits = exits.pop_all()

    async def _kept_up(self, watch: Watch) -> None:
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

    async def prepare(self, settings: RouterSettings) -> TakeOver:
        """Builds the targets that are new (meshkit.reload.Reloading). Raises SettingsError for prices of no use."""
        prices = await asyncio.to_thread(load_prices, settings.ledger.prices_file)
        targets = self._maker.made(settings.targets, self._targets)

        async def take_over() -> None:
            former = self._targets
            new = [held for name, held in targets.items() if former.get(name) is not held]
            self._maker.follow_providers(former, targets)
            await self._maker.until_up(new)
            ended = self._routing.take_over(
                {name: held.target for name, held in targets.items()},
                settings.model_specs(),
                settings.default_model,
                prices,
                settings.router.max_attempts,
            )
            self._limits.take_over(Subjects(settings.auth.limits))
            self._targets = targets
            self._maker.follow_providers(targets)
            self._follow_targets()
            self._retire([held for name, held in former.items() if targets.get(name) is not held], ended)

        return take_over

    def _follow_targets(self) -> None:
        for held in self._targets.values():
            held.follow(self._kept_up)

    def _retire(self, targets: Sequence[HeldTarget], ended: asyncio.Event) -> None:
        """Closes targets once the requests that began before now have ended."""
        task = asyncio.create_task(self._retired(targets, ended, list(self._retiring)))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retired(
        self, targets: Sequence[HeldTarget], ended: asyncio.Event, earlier: Sequence[asyncio.Task[None]]
    ) -> None:
        try:
            async with asyncio.timeout(RETIRED_FOR_S):
                await ended.wait()
                # Requests that are older still may use them too.
                await asyncio.wait(earlier) if earlier else None
        except TimeoutError:
            self._log.warning("requests on former targets cut", limit_s=RETIRED_FOR_S)
        finally:
            for held in targets:
                await held.close()

    async def _close_targets(self) -> None:
        for task in list(self._retiring):
            await _cancel(task)
        for held in self._targets.values():
            await held.close()

    def _make_routing(self, settings: RouterSettings, metrics: RouterMetrics) -> Routing:
        around = Surroundings(
            {name: TargetState(held.target, self._clock) for name, held in self._targets.items()},
            self._attempts.log,
            load_prices(settings.ledger.prices_file),
            self._clock,
            uuid7,
            random.random,
            metrics,
            self._log,
            self._block.max_attempts,
        )
        return Routing(around, settings.model_specs(), settings.default_model, int(time.time()))

    def _make_servicers(self) -> Sequence[Servicer]:
        answer, cards, door = self._limits, self._routing.cards, self._make_door()
        deliver = Deliver(answer)
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

    def _limited(self, settings: RouterSettings) -> LimitedAnswer:
        rates = settings.router.rates
        admission = Admission(self._leases, rates, self._clock, self._rate_metrics)
        subjects = Subjects(settings.auth.limits)
        sampled = SampledAnswer(self._routing.answer, self._samples, random.random, self._clock.now)
        return LimitedAnswer(sampled, subjects, admission, rates.assumed_output_tokens, self._rate_metrics)

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
