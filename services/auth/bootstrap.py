"""Where Auth's adapters meet its ports."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry, Gauge
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from meshkit.postgres import migrate, open_pool
from meshkit.reload import TakeOver
from meshkit.serving import Servicer
from meshkit.settings import POSTGRES_VARIABLE, SettingsError
from meshkit.telemetry import Logger
from services.auth.adapters.jwks import key_sources
from services.auth.adapters.postgres import SCHEMA, PostgresKeyFeed, PostgresKeyStore, migrations
from services.auth.adapters.postgres_audit import PostgresAuditLog
from services.auth.adapters.postgres_rates import PostgresRates
from services.auth.adapters.postgres_samples import PostgresSampleStore
from services.auth.adapters.postgres_turn import PostgresTurn
from services.auth.adapters.token_file import SecretTokenFile
from services.auth.administer import Administer
from services.auth.aside import Aside
from services.auth.authenticate import Authenticate
from services.auth.authorize import Authorize
from services.auth.check import Check
from services.auth.check_settings import CheckSettings
from services.auth.create_key import CreateKey
from services.auth.ext_authz_servicer import ExtAuthzServicer
from services.auth.first_admin_key import FirstAdminKey
from services.auth.follow_store import FollowStore
from services.auth.get_key import GetKey
from services.auth.jwt.build import build_tokens
from services.auth.keep_samples import KeepSamples
from services.auth.lease_rate import LeaseRate
from services.auth.limits import Totals
from services.auth.list_audit import ListAudit
from services.auth.list_keys import ListKeys
from services.auth.list_samples import ListSamples
from services.auth.live_key_set import LiveKeySet
from services.auth.ports import AuditLog, KeyStore, SampleStore
from services.auth.prune import Prune
from services.auth.recognise import Recognise
from services.auth.record_refusal import RecordRefusal
from services.auth.report_refusals import ReportRefusals
from services.auth.revoke_key import RevokeKey
from services.auth.rotate_key import RotateKey
from services.auth.servicer import AuthServicer, ForAdmins, ForRouters
from services.auth.set_key_sampling import SetKeySampling
from services.auth.settings import AuthSettings
from services.auth.sweep_rates import SweepRates
from services.auth.watch_keys import WatchKeys


class AuthService:
    """Auth, ready to be mounted on a server or called in the same process. Made by `build`."""

    def __init__(self, dsn: str, settings: AuthSettings, registry: CollectorRegistry, log: Logger) -> None:
        block = settings.auth
        self._dsn = dsn
        self._log = log
        # A reading may be as old as the wait for it and the time that it may take.
        self._live = LiveKeySet(block.poll + block.store_timeout, time.monotonic)
        self._pool = _pool(dsn, SCHEMA, block.pool_size, block.store_timeout)
        # Of its own: who waits for a limit that is locked keeps nobody from a key.
        self._rate_pool = _pool(dsn, "auth rates", block.rate_pool_size, block.store_timeout)
        self.limits = block.limits
        """What holds from the next call on; to be set anew when the settings change."""
        rates = PostgresRates(self._rate_pool, block.store_timeout, block.rate_lease)
        self._sweep_rates = SweepRates(rates, block.rate_sweep, log)
        totals = Totals(self._live.keys.find, lambda: self.limits)
        self._feed = PostgresKeyFeed(dsn, block.store_timeout, block.load_timeout)
        self._follow = FollowStore(self._feed, self._live, block.poll, time.monotonic, log)
        self._exits = AsyncExitStack()
        store = PostgresKeyStore(self._pool, block.store_timeout)
        audit = PostgresAuditLog(self._pool, block.store_timeout)
        samples = PostgresSampleStore(self._pool, block.store_timeout)
        self._prune = (
            Prune("audit", audit, _now, log, keep=block.audit_keep),
            Prune("samples", samples, _now, log, keep=block.samples_keep),
        )
        self._first_admin_key = FirstAdminKey(
            store, PostgresTurn(dsn, block.load_timeout), SecretTokenFile(settings.admin_key_file),
            _now, secrets.token_bytes, log,
        )  # fmt: skip
        sources = key_sources(block.issuers, block.jwt)
        self._tokens = build_tokens(block.issuers, block.jwt, sources, _now, time.monotonic, registry, log)
        authenticate = Authenticate(store, _now, self._tokens)
        self.servicer = AuthServicer(
            ForRouters(
                authenticate=authenticate,
                watch_keys=WatchKeys(self._live, block.heartbeat),
                lease_rate=LeaseRate(rates, totals, block.rate_lease, block.rate_retry),
                report_refusals=ReportRefusals(audit, _now),
                keep_samples=KeepSamples(samples, self._live.keys.find),
            ),
            self._for_admins(store, audit, samples),
            Administer(
                Authorize(authenticate),
                RecordRefusal(audit, block.audit_refusals_per_minute, time.monotonic, log),
                _now,
            ),
        )
        # Counted apart from refused administration: a flood here hides nothing there.
        self._aside = Aside(RecordRefusal(audit, block.audit_refusals_per_minute, time.monotonic, log))
        self._ext_authz = self._for_the_edge(authenticate, block.checks)
        _expose(self._live, registry)

    def _for_the_edge(self, authenticate: Authenticate, settings: CheckSettings) -> ExtAuthzServicer:
        recognise = Recognise(self._live, authenticate, _now, time.monotonic, settings)
        return ExtAuthzServicer(Check(recognise, self._aside, _now, settings))

    @staticmethod
    def _for_admins(store: KeyStore, audit: AuditLog, samples: SampleStore) -> ForAdmins:
        return ForAdmins(
            create_key=CreateKey(store, _now, secrets.token_bytes),
            list_keys=ListKeys(store, audit, _now),
            get_key=GetKey(store, audit, _now),
            rotate_key=RotateKey(store, _now, secrets.token_bytes),
            revoke_key=RevokeKey(store, audit, _now),
            set_key_sampling=SetKeySampling(store, _now),
            list_audit=ListAudit(audit, _now),
            list_samples=ListSamples(samples, audit, _now),
        )

    @property
    def servicers(self) -> Sequence[Servicer]:
        """What is mounted."""
        return (self.servicer, self._ext_authz)

    async def start(self) -> None:
        """Migrates, connects and loads the key set.

        Raises DatabaseUnavailableError, MigrationError, or UpstreamError if PostgreSQL goes away meanwhile.
        """
        for script in await migrate(self._dsn, SCHEMA, migrations()):
            self._log.info("migrated", script=script)
        async with AsyncExitStack() as exits:
            exits.push_async_callback(self._pool.close)
            await self._pool.open()
            exits.push_async_callback(self._aside.close)
            exits.push_async_callback(self._rate_pool.close)
            await self._rate_pool.open()
            await self._first_admin_key()
            exits.push_async_callback(self._feed.close)
            await self._follow.refresh()
            exits.push_async_callback(self._tokens.stop)
            self._tokens.start()
            exits.push_async_callback(_cancel, asyncio.create_task(self._follow.run()))
            exits.push_async_callback(_cancel, asyncio.create_task(self._sweep_rates.forever()))
            for prune in self._prune:
                exits.push_async_callback(_cancel, asyncio.create_task(prune.forever()))
            self._exits = exits.pop_all()
        self._log.info("key set loaded", keys=len(self._live.keys), version=self._live.version)

    async def prepare(self, settings: AuthSettings) -> TakeOver:
        """Takes over the limits (meshkit.reload.Reloading)."""

        async def take_over() -> None:
            self.limits = settings.auth.limits

        return take_over

    async def drain(self) -> None:
        """Ends the watches, which would otherwise last as long as their watchers wish."""
        self._live.close()

    async def stop(self) -> None:
        """Ends the follower and closes every connection."""
        self._live.close()
        await self._exits.aclose()


def build(settings: AuthSettings, registry: CollectorRegistry, log: Logger) -> AuthService:
    """Auth over PostgreSQL. Raises SettingsError if there is no DSN, DatabaseUnavailableError for a malformed one."""
    if not settings.postgres_dsn:
        raise SettingsError(f"postgres_dsn: needed (or {POSTGRES_VARIABLE} in the environment)")
    return AuthService(settings.postgres_dsn, settings, registry, log)


def _pool(dsn: str, name: str, size: int, timeout: timedelta) -> AsyncConnectionPool[AsyncConnection]:
    return open_pool(dsn, name=name, max_size=size, checkout_timeout=timeout, statement_timeout=timeout)


def _now() -> datetime:
    return datetime.now(UTC)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _expose(live: LiveKeySet, registry: CollectorRegistry) -> None:
    keys = Gauge("weir_auth_keys", "Keys held, revoked and expired ones among them.", registry=registry)
    keys.set_function(live.keys.__len__)
    version = Gauge("weir_auth_key_set_version", "Version of the key set held.", registry=registry)
    version.set_function(lambda: live.version)
    age = Gauge("weir_auth_store_read_age_seconds", "Since the store was last read.", registry=registry)
    age.set_function(lambda: live.age_s)
