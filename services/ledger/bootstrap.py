"""Where the ledger's adapters meet its ports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from importlib import resources

from prometheus_client import CollectorRegistry
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from gen.rpc import Transport
from gen.weir.auth.v1.service import AuthClient
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.postgres import migrate, open_pool
from meshkit.reload import TakeOver
from meshkit.settings import SettingsError
from meshkit.telemetry import Logger
from pricing.prices_file import load_prices
from services.ledger.adapters.auth import AuthKeys
from services.ledger.adapters.metered_store import MeteredEntryStore
from services.ledger.adapters.postgres import SCHEMA, PostgresEntryStore
from services.ledger.domain.entry import Span
from services.ledger.prepare_days import PrepareDays
from services.ledger.recognise import Recognise
from services.ledger.record import Record
from services.ledger.servicer import Ledger
from services.ledger.settings import LedgerBlock, LedgerSettings
from services.ledger.stopping import Stopping
from services.ledger.usage import Usage

_PREPARE_INTERVAL = timedelta(hours=1)
"""Far below a day, so that a failed round has many more before the day begins."""


class Service:
    """The ledger, ready to be mounted (meshkit.server.Service)."""

    def __init__(
        self,
        servicer: Ledger,
        record: Record,
        stopping: Stopping,
        prepare_days: PrepareDays,
        dsn: str,
        pool: AsyncConnectionPool[AsyncConnection],
        log: Logger,
    ) -> None:
        self.servicer = servicer
        self._record = record
        self._stopping = stopping
        self._prepare_days = prepare_days
        self._dsn = dsn
        self._pool = pool
        self._log = log
        self._exits = AsyncExitStack()

    @property
    def servicers(self) -> Sequence[Ledger]:
        """What is mounted."""
        return (self.servicer,)

    async def start(self) -> None:
        """Brings the schema up to date and connects.

        Raises DatabaseUnavailableError, MigrationError, LedgerUnavailable.
        """
        scripts = resources.files("services.ledger.adapters").joinpath("migrations")
        applied = await migrate(self._dsn, SCHEMA, scripts)
        if applied:
            self._log.info("schema brought up to date", schema=SCHEMA, scripts=applied)
        async with AsyncExitStack() as exits:
            await self._pool.open()
            exits.push_async_callback(self._pool.close)
            await self._prepare_days.once()
            exits.push_async_callback(_end, asyncio.create_task(self._prepare_days.forever()))
            self._exits = exits.pop_all()

    async def prepare(self, settings: LedgerSettings) -> TakeOver:
        """Takes over the prices (meshkit.reload.Reloading). Raises SettingsError for a list of no use."""
        prices = await asyncio.to_thread(load_prices, settings.ledger.prices_file)

        async def take_over() -> None:
            self._record.take_prices(prices)

        return take_over

    async def drain(self) -> None:
        """Ends the Record streams, each after the batch in hand."""
        self._stopping.begin()

    async def stop(self) -> None:
        """Ends the job and closes the connections."""
        await self._exits.aclose()


def auth_over_channel(settings: LedgerSettings, exits: AsyncExitStack) -> Transport:
    """A channel to Auth, which is opened by the first call; `exits` closes it."""
    channel = open_channel(settings.address("auth"), settings.towards("auth", "ledger"))
    exits.push_async_callback(channel.close)
    return ChannelTransport(channel, mesh_codec())


def build(settings: LedgerSettings, auth: Transport, registry: CollectorRegistry, log: Logger) -> Service:
    """Wires the ledger; connects to nothing yet. `auth` says whose keys ask for reports. Raises SettingsError."""
    block = settings.ledger
    if not settings.postgres_dsn:
        raise SettingsError("postgres_dsn: the ledger needs it (in weir.yaml, or WEIR_POSTGRES_DSN)")
    prices = load_prices(block.prices_file)
    pool = _pool(settings.postgres_dsn, block)
    store = PostgresEntryStore(pool, log)
    metered = MeteredEntryStore(store, registry)
    record = Record(metered, prices, _now, _span(block))
    ahead = timedelta(days=block.days_ahead)
    prepare_days = PrepareDays(store, _now, log, ahead=ahead, interval=_PREPARE_INTERVAL)
    stopping = Stopping()
    servicer = Ledger(record, Usage(metered, _now), _recognise(auth, block), stopping)
    return Service(servicer, record, stopping, prepare_days, settings.postgres_dsn, pool, log)


def _recognise(auth: Transport, block: LedgerBlock) -> Recognise:
    keys = AuthKeys(AuthClient(auth), timedelta(seconds=block.auth_ask_s))
    return Recognise(keys, _now, time.monotonic, timedelta(seconds=block.key_memory_s), block.keys_remembered)


async def _end(job: asyncio.Task[None]) -> None:
    job.cancel()
    with suppress(asyncio.CancelledError):
        await job


def _pool(dsn: str, block: LedgerBlock) -> AsyncConnectionPool[AsyncConnection]:
    return open_pool(
        dsn,
        name="weir-ledger",
        max_size=block.pool_size,
        checkout_timeout=timedelta(seconds=block.checkout_timeout_s),
        statement_timeout=timedelta(seconds=block.statement_timeout_s),
    )


def _span(block: LedgerBlock) -> Span:
    return Span(past=timedelta(days=block.accept_past_days), future=timedelta(seconds=block.accept_future_s))


def _now() -> datetime:
    return datetime.now(UTC)
