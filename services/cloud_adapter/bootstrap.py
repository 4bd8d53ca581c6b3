"""The one place where the cloud adapter's parts meet."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry

from gen.weir.cloud.v1 import Provider
from meshkit.serving import Servicer
from meshkit.telemetry import Logger
from services.cloud_adapter.adapters.metered import MeteredGenerate
from services.cloud_adapter.adapters.openai_sdk import OpenAICompatible, trusted
from services.cloud_adapter.adapters.secret import FoundSecret, secret_from_environment, secret_from_file
from services.cloud_adapter.generate import Generate
from services.cloud_adapter.list_providers import ListProviders
from services.cloud_adapter.servicer import CloudAdapter
from services.cloud_adapter.settings import CloudAdapterSettings, ProviderSettings


class Service:
    """The cloud adapter of one process (meshkit.server.Service)."""

    def __init__(
        self, providers: Mapping[str, OpenAICompatible], servicer: CloudAdapter, log: Logger
    ) -> None:
        self._providers = providers
        self._log = log
        self.servicer: Final = servicer
        self.servicers: Final[Sequence[Servicer]] = (servicer,)

    async def start(self) -> None:
        """Makes each provider ready and says whether it can be used; connections are made on first use."""
        for provider in self._providers.values():
            await provider.open()
            listing = provider.listing
            facts = {"provider": listing.name, "base_url": listing.base_url, "sandbox": listing.sandbox}
            if listing.usable:
                self._log.info("provider", **facts)
            else:
                self._log.warning("provider cannot be used", **facts, problem=listing.problem)

    async def stop(self) -> None:
        """Ends every connection."""
        for provider in self._providers.values():
            await provider.close()


def build(
    settings: CloudAdapterSettings,
    registry: CollectorRegistry,
    log: Logger,
    environment: Mapping[str, str] | None = None,
) -> Service:
    """The service. Reads secrets, once; opens no connection.

    Args:
        settings: the adapter's part of weir.yaml.
        registry: takes its metrics.
        log: takes what an operator should know.
        environment: where `api_key_env` is looked up; the process's own by default.
    """
    known = os.environ if environment is None else environment
    providers = {
        name: _provider(name, provider, settings, known, log) for name, provider in settings.providers.items()
    }
    generate = MeteredGenerate(Generate(providers), frozenset(providers), registry, log)
    return Service(providers, CloudAdapter(generate, ListProviders(providers)), log)


def _provider(
    name: str,
    provider: ProviderSettings,
    settings: CloudAdapterSettings,
    environment: Mapping[str, str],
    log: Logger,
) -> OpenAICompatible:
    found = _secret(provider, environment)
    authorities, distrust = _authorities(provider)
    if found.warning:
        log.warning("provider secret", provider=name, problem=found.warning)
    if provider.in_clear and not found.problem:
        log.warning("provider secret", provider=name, problem="it crosses the network unencrypted: use https")
    problem = found.problem or distrust
    listing = Provider(
        name=name, base_url=provider.base_url, sandbox=provider.sandbox, usable=not problem, problem=problem
    )
    return OpenAICompatible(listing, provider, settings.cloud_adapter, found.secret, authorities, _now)


def _authorities(provider: ProviderSettings) -> tuple[ssl.SSLContext, str]:
    try:
        return trusted(provider.ca_file), ""
    except OSError as error:
        # It is never asked, so whom it would trust does not matter.
        return ssl.create_default_context(), f"ca_file {provider.ca_file}: {error.strerror}"


def _secret(provider: ProviderSettings, environment: Mapping[str, str]) -> FoundSecret:
    if provider.api_key_file is not None:
        return secret_from_file(provider.api_key_file)
    if provider.api_key_env is not None:
        return secret_from_environment(provider.api_key_env, environment)
    if provider.sandbox:
        return FoundSecret()
    return FoundSecret(problem="neither api_key_file nor api_key_env is set")


def _now() -> datetime:
    return datetime.now(UTC)
