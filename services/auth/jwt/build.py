"""Puts the reading of tokens together, as the configuration says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry

from meshkit.telemetry import Logger
from services.auth.jwt.authenticate_jwt import AuthenticateJwt, Issuer
from services.auth.jwt.claims import Rules
from services.auth.jwt.grants import Grants
from services.auth.jwt.issuer_keys import IssuerKeys, KeyTimes
from services.auth.jwt.metrics import TokenMetrics
from services.auth.jwt.ports import KeySource
from services.auth.jwt.settings import IssuerSettings, JwtBlock
from services.auth.ports import Clock


def build_tokens(
    issuers: Mapping[str, IssuerSettings],
    block: JwtBlock,
    sources: Mapping[str, KeySource],
    now: Clock,
    monotonic: Callable[[], float],
    registry: CollectorRegistry,
    log: Logger,
) -> AuthenticateJwt:
    """Everything that verifies tokens; `sources` are the issuers' keys, by the issuers' names."""
    metrics = TokenMetrics(registry)
    ready = {
        settings.issuer: Issuer(
            name,
            IssuerKeys(name, sources[name], _times(settings, block), monotonic, metrics, log),
            Rules(frozenset(settings.audiences), block.clock_skew, block.max_lifetime),
            Grants(name, settings),
        )
        for name, settings in issuers.items()
    }
    return AuthenticateJwt(ready, block.max_token_bytes, now, metrics)


def _times(settings: IssuerSettings, block: JwtBlock) -> KeyTimes:
    if settings.jwks_file is None:
        return KeyTimes(block.keys_fresh_s, block.keys_refetch_s, block.keys_stale_s)
    return KeyTimes(block.file_poll_s, block.file_poll_s, block.keys_stale_s)
