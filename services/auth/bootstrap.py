"""Where Auth's adapters meet its ports."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import NoReturn

from prometheus_client import CollectorRegistry, Gauge

from meshkit.errors import InvalidRequest
from meshkit.postgres import migrate, open_pool
from meshkit.serving import Servicer
from meshkit.settings import POSTGRES_VARIABLE, SettingsError
from meshkit.telemetry import Logger
from services.auth.adapters.postgres import SCHEMA, PostgresKeyFeed, PostgresKeyStore, migrations
from services.auth.authenticate import Authenticate
from services.auth.authorize import Authorize
from services.auth.create_key import CreateKey
from services.auth.follow_store import FollowStore
from services.auth.live_key_set import LiveKeySet
from services.auth.servicer import AuthServicer, ForAdmins, ForRouters
from services.auth.settings import AuthBlock, AuthSettings
from services.auth.watch_keys import WatchKeys


class AuthService:
    """Auth, ready to be mounted on a server or called in the same process. Made by `build`."""

    def __init__(self, dsn: str, block: AuthBlock, registry: CollectorRegistry, log: Logger) -> None:
        self._dsn = dsn
        self._log = log
        # A reading may be as old as the wait for it and the time that it may take.
        self._live = LiveKeySet(block.poll + block.store_timeout, time.monotonic)
        self._pool = open_pool(
            dsn, name=SCHEMA, max_size=block.pool_size,
            checkout_timeout=block.store_timeout, statement_timeout=block.store_timeout,
        )  # fmt: skip
        self._feed = PostgresKeyFeed(dsn, block.store_timeout, block.load_timeout)
        self._follow = FollowStore(self._feed, self._live, block.poll, time.monotonic, log)
        self._exits = AsyncExitStack()
        store = PostgresKeyStore(self._pool, block.store_timeout)
        authenticate = Authenticate(store, _now)
        self.servicer = AuthServicer(
            ForRouters(
                authenticate=authenticate,
                watch_keys=WatchKeys(self._live, block.heartbeat),
                lease_rate=_not_yet,
                report_refusals=_not_yet,
                keep_samples=_not_yet,
            ),
            ForAdmins(
                create_key=CreateKey(store, _now, secrets.token_bytes),
                list_keys=_not_yet,
                get_key=_not_yet,
                rotate_key=_not_yet,
                revoke_key=_not_yet,
                set_key_sampling=_not_yet,
                list_audit=_not_yet,
                list_samples=_not_yet,
            ),
            Authorize(authenticate),
        )
        _expose(self._live, registry)

    @property
    def servicers(self) -> Sequence[Servicer]:
        """What is mounted."""
        return (self.servicer,)

    async def start(self) -> None:
        """Migrates, connects and loads the key set.

        Raises DatabaseUnavailableError, MigrationError, or UpstreamError if PostgreSQL goes away meanwhile.
        """
        for script in await migrate(self._dsn, SCHEMA, migrations()):
            self._log.info("migrated", script=script)
        async with AsyncExitStack() as exits:
            exits.push_async_callback(self._pool.close)
            await self._pool.open()
            exits.push_async_callback(self._feed.close)
            await self._follow.refresh()
            exits.push_async_callback(_cancel, asyncio.create_task(self._follow.run()))
            self._exits = exits.pop_all()
        self._log.info("key set loaded", keys=len(self._live.keys), version=self._live.version)

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
    return AuthService(settings.postgres_dsn, settings.auth, registry, log)


async def _not_yet(*_: object) -> NoReturn:
    raise InvalidRequest("not served yet")


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
