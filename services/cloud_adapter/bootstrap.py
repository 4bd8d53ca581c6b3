"""The one place where the cloud adapter's parts meet."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import SystemRandom
from typing import Final

from prometheus_client import CollectorRegistry

from gen.weir.cloud.v1 import Provider as Listing
from meshkit.reload import TakeOver
from meshkit.serving import Servicer
from meshkit.telemetry import Logger
from services.cloud_adapter.adapters.account import Account
from services.cloud_adapter.adapters.azure_openai import AzureOpenAI
from services.cloud_adapter.adapters.credentials import FoundCredentials, credentials
from services.cloud_adapter.adapters.family import Family
from services.cloud_adapter.adapters.http import HttpProvider, trusted
from services.cloud_adapter.adapters.metered import Answers, MeteredEmbed, MeteredGenerate
from services.cloud_adapter.adapters.openai_compatible import OpenAICompatible
from services.cloud_adapter.adapters.provider_set import ProviderSet
from services.cloud_adapter.domain.key_ring import KeyRing, Rests
from services.cloud_adapter.embed import Embed
from services.cloud_adapter.generate import Generate
from services.cloud_adapter.list_providers import ListProviders
from services.cloud_adapter.servicer import CloudAdapter
from services.cloud_adapter.settings import CloudAdapterSettings, ProviderSettings


class Service:
    """The cloud adapter of one process (meshkit.server.Service)."""

    def __init__(
        self,
        providers: ProviderSet,
        servicer: CloudAdapter,
        make: Callable[[CloudAdapterSettings], Mapping[str, HttpProvider]],
        log: Logger,
    ) -> None:
        self._providers = providers
        self._make = make
        self._log = log
        self.servicer: Final = servicer
        self.servicers: Final[Sequence[Servicer]] = (servicer,)

    async def start(self) -> None:
        """Makes each provider ready and says whether it can be used; connections are made on first use."""
        await self._providers.open()
        self._tell(self._providers)

    async def prepare(self, settings: CloudAdapterSettings) -> TakeOver:
        """Makes the providers that are new (meshkit.reload.Reloading); secrets are read again."""
        former = dict(self._providers)
        providers = self._providers.joined(self._make(settings))

        async def take_over() -> None:
            await self._providers.take_over(providers)
            self._tell({name: one for name, one in providers.items() if former.get(name) is not one})

        return take_over

    async def stop(self) -> None:
        """Ends every connection."""
        await self._providers.close()

    def _tell(self, providers: Mapping[str, HttpProvider]) -> None:
        for provider in providers.values():
            listing = provider.listing
            facts = {"provider": listing.name, "base_url": listing.base_url, "sandbox": listing.sandbox}
            if listing.usable:
                self._log.info("provider", **facts)
            else:
                self._log.warning("provider cannot be used", **facts, problem=listing.problem)


@dataclass(frozen=True, slots=True)
class World:
    """What a provider's parts know of the world; all of it the real one by default."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    """Where `api_key_env` is looked up."""
    random: Callable[[], float] = field(default_factory=lambda: SystemRandom().random)
    """Evenly from [0, 1)."""
    monotonic_s: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def build(
    settings: CloudAdapterSettings,
    registry: CollectorRegistry,
    log: Logger,
    world: World | None = None,
) -> Service:
    """The service. Reads secrets; opens no connection.

    Args:
        settings: the adapter's part of weir.yaml.
        registry: takes its metrics.
        log: takes what an operator should know.
        world: environment, randomness and clocks; the process's own by default.
    """
    known = world or World()

    def make(settings: CloudAdapterSettings) -> dict[str, HttpProvider]:
        return {
            name: _provider(name, provider, settings, known, log)
            for name, provider in settings.providers.items()
        }

    providers = ProviderSet(make(settings))
    answers = Answers(providers, registry, log)
    servicer = CloudAdapter(
        MeteredGenerate(Generate(providers), answers),
        MeteredEmbed(Embed(providers), answers),
        ListProviders(providers),
    )
    return Service(providers, servicer, make, log)


def _provider(
    name: str, provider: ProviderSettings, settings: CloudAdapterSettings, world: World, log: Logger
) -> HttpProvider:
    found = credentials(provider, world.environment, world.monotonic_s)
    authorities, distrust = _authorities(provider)
    _warn(name, provider, found, log)
    problem = found.problem or distrust
    listing = Listing(
        name=name, base_url=provider.base_url, sandbox=provider.sandbox, usable=not problem, problem=problem
    )
    family: Family = (
        AzureOpenAI(provider) if provider.family == "azure_openai" else OpenAICompatible(provider)
    )
    account = _account(name, provider, found, family, world, log)
    return HttpProvider(listing, provider, settings.cloud_adapter, family, account, authorities, world.now)


def _account(
    name: str, provider: ProviderSettings, found: FoundCredentials, family: Family, world: World, log: Logger
) -> Account:
    refused, limited = provider.key_refused_rest_s, provider.key_limited_rest_s
    rests = Rests(timedelta(seconds=refused), timedelta(seconds=limited))
    ring = KeyRing(found.weights, rests, world.random, world.monotonic_s)

    def told(place: int, status: int, rest: timedelta) -> None:
        rest_s = rest.total_seconds()
        log.warning("provider key rests", provider=name, key=found.names[place], status=status, rest_s=rest_s)

    return Account(found.credentials, ring, family.headers, told)


def _warn(name: str, provider: ProviderSettings, found: FoundCredentials, log: Logger) -> None:
    for warning in found.warnings:
        log.warning("provider secret", provider=name, problem=warning)
    if provider.in_clear and not found.problem:
        log.warning("provider secret", provider=name, problem="it crosses the network unencrypted: use https")


def _authorities(provider: ProviderSettings) -> tuple[ssl.SSLContext, str]:
    try:
        return trusted(provider.ca_file), ""
    except OSError as error:
        # It is never asked, so whom it would trust does not matter.
        return ssl.create_default_context(), f"ca_file {provider.ca_file}: {error.strerror}"
