"""Finds what a provider is shown: its keys or its token, as the configuration names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.cloud_adapter.adapters.secret import (
    Credential,
    FoundSecret,
    Key,
    TokenFile,
    secret_from_environment,
    secret_from_file,
)
from services.cloud_adapter.settings import KeySettings, ProviderSettings


@dataclass(frozen=True, slots=True)
class FoundCredentials:
    """What was found: at least one credential, of which nothing is sent where there is a problem."""

    credentials: Sequence[Credential]
    weights: Sequence[int]
    """One for each credential."""
    names: Sequence[str]
    """The same: where each was found, for an operator."""
    problem: str = ""
    """Why there is none; empty if there is one, or none is needed."""
    warnings: Sequence[str] = ()


def credentials(
    provider: ProviderSettings, environment: Mapping[str, str], monotonic_s: Callable[[], float]
) -> FoundCredentials:
    """Reads the provider's secrets. Those that cannot be read are left out; none of the texts holds a value.

    Args:
        provider: where they are.
        environment: where variables are looked up.
        monotonic_s: a clock in seconds that never goes back.
    """
    if provider.azure_ad_token_file is not None:
        return _token(provider.azure_ad_token_file, provider.azure_ad_token_reread_s, monotonic_s)
    found = [(key, _secret(key, environment)) for key in provider.api_keys]
    if not found:
        found = [(KeySettings.model_construct(), _only(provider, environment))]
    good = [(key, secret) for key, secret in found if not secret.problem]
    problems = [secret.problem for _, secret in found if secret.problem]
    warnings = [secret.warning for _, secret in found if secret.warning]
    if not good:
        return FoundCredentials([Key(FoundSecret().secret)], [1], [""], "; ".join(problems), warnings)
    return FoundCredentials(
        [Key(secret.secret) for _, secret in good],
        [key.weight for key, _ in good],
        [str(key.env or key.file) for key, _ in good],
        warnings=[*warnings, *problems],
    )


def _token(path: Path, reread_s: float, monotonic_s: Callable[[], float]) -> FoundCredentials:
    found = secret_from_file(path, "azure_ad_token_file")
    token = TokenFile(path, found.secret, reread_s, monotonic_s)
    return FoundCredentials(
        [token], [1], [str(path)], found.problem, [found.warning] if found.warning else []
    )


def _secret(key: KeySettings, environment: Mapping[str, str]) -> FoundSecret:
    if key.file is not None:
        return secret_from_file(key.file, "api_keys")
    return secret_from_environment(key.env or "", environment, "api_keys")


def _only(provider: ProviderSettings, environment: Mapping[str, str]) -> FoundSecret:
    if provider.api_key_file is not None:
        return secret_from_file(provider.api_key_file)
    if provider.api_key_env is not None:
        return secret_from_environment(provider.api_key_env, environment)
    if provider.sandbox:
        return FoundSecret()
    return FoundSecret(problem="neither api_key_file nor api_key_env is set")
