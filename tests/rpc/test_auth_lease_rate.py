"""LeaseRate as routers see it: generated client, real server, real PostgreSQL; and inside the caller's process."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from gen.rpc import Transport
from gen.weir.auth.v1 import (
    LeaseRateRequest,
    LeaseRateResponse,
    Meter,
    RateDemand,
    RateGrant,
    RateLimit,
    RateSubjectKind,
)
from gen.weir.auth.v1.service import AuthClient
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import InvalidRequest, UpstreamError
from meshkit.inprocess import InProcessTransport
from meshkit.limit_settings import LimitsBlock, LimitSettings
from meshkit.server import MeshServer
from meshkit.settings import Listen
from meshkit.telemetry import Logger
from services.auth.bootstrap import AuthService, build
from services.auth.settings import AuthBlock, AuthSettings

_SOON_S = 10.0
_LIMITS = LimitsBlock(
    keys=LimitSettings(requests_per_minute=100),
    orgs={"acme": LimitSettings(concurrent_requests=10)},
    models={"*": LimitSettings(tokens_per_minute=1_000)},
)
_BLOCK = AuthBlock(poll_s=0.05, store_timeout_s=2.0, limits=_LIMITS)
_KEY = RateLimit(kind=RateSubjectKind.KEY, name="jwt_me", meter=Meter.REQUESTS)
_ORG = RateLimit(kind=RateSubjectKind.ORG, name="acme", meter=Meter.CONCURRENT)
_MODEL = RateLimit(kind=RateSubjectKind.MODEL, name="gpt-4o", meter=Meter.TOKENS)
_TEAM = RateLimit(kind=RateSubjectKind.TEAM, name="acme/search", meter=Meter.REQUESTS)


@dataclass
class _Auth:
    """One auth process's worth of Auth."""

    client: AuthClient
    service: AuthService


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: sockets' names are limited to 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="weir-rate-"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def _started(dsn: str, folder: Path, name: str, *, in_process: bool) -> AsyncGenerator[_Auth]:
    registry = CollectorRegistry()
    async with AsyncExitStack() as exits:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        exits.callback(os.close, descriptor)
        log = Logger("auth", descriptor)
        service = build(AuthSettings(postgres_dsn=dsn, auth=_BLOCK, home=folder), registry, log)
        transport: Transport
        if in_process:
            exits.push_async_callback(service.stop)
            await service.start()
            transport = InProcessTransport(service.servicer, log)
        else:
            address = f"unix:{folder}/{name}.sock"
            server = MeshServer("auth", service, Listen(address, "", 0, timedelta(seconds=30)), registry, log)
            await server.start()
            exits.push_async_callback(server.stop)
            channel = open_channel(address)
            exits.push_async_callback(channel.close)
            transport = ChannelTransport(channel, mesh_codec())
        yield _Auth(AuthClient(transport), service)


@pytest.fixture(params=["separate", "compact"])
async def auth(request: pytest.FixtureRequest, postgres_dsn: str, folder: Path) -> AsyncIterator[_Auth]:
    async with _started(postgres_dsn, folder, "a", in_process=request.param == "compact") as started:
        yield started


def _demand(limit: RateLimit, used: int, held: int, wanted: int) -> RateDemand:
    return RateDemand(limit=limit, used_total=used, held=held, wanted=wanted)


async def _ask(auth: _Auth, holder: str, *demands: RateDemand) -> LeaseRateResponse:
    return await auth.client.lease_rate(LeaseRateRequest(holder=holder, demands=list(demands)))


async def _one(auth: _Auth, holder: str, demand: RateDemand) -> RateGrant:
    (grant,) = (await _ask(auth, holder, demand)).grants
    return grant


async def test_each_demand_has_its_grant(auth: _Auth) -> None:
    """In their order; a limit that does not exist has the total 0."""
    demands = [_demand(limit, 0, 0, 7) for limit in (_MODEL, _TEAM, _ORG, _KEY)]
    answer = await _ask(auth, "r1", *demands)
    assert [grant.limit for grant in answer.grants] == [_MODEL, _TEAM, _ORG, _KEY]
    assert [(grant.total, grant.granted, grant.free) for grant in answer.grants] == [
        (1_000, 7, 993), (0, 0, 0), (10, 7, 3), (100, 7, 93),
    ]  # fmt: skip
    assert [grant.retry_after for grant in answer.grants] == [None] * 4
    assert (answer.good_for, answer.holders) == (timedelta(seconds=10), 1)


async def test_a_limit_holds_across_processes_and_restarts(
    auth: _Auth, postgres_dsn: str, folder: Path
) -> None:
    """A second auth process counts on where the first one is."""
    assert (await _one(auth, "r1", _demand(_KEY, 0, 0, 60))).granted == 60
    async with _started(postgres_dsn, folder, "b", in_process=False) as other:
        answer = await _ask(other, "r2", _demand(_KEY, 0, 0, 60))
        assert (answer.grants[0].granted, answer.grants[0].free, answer.holders) == (40, 0, 2)
        assert answer.grants[0].retry_after == timedelta(seconds=0.2)
    full = await _one(auth, "r1", _demand(_KEY, 60, 0, 1))
    assert full.retry_after is not None
    assert timedelta(seconds=59) < full.retry_after <= timedelta(seconds=61)
    assert full.reset == full.retry_after


async def test_what_is_named_no_more_is_given_back(auth: _Auth) -> None:
    """All of it, at once."""
    await _ask(auth, "r1", _demand(_KEY, 0, 0, 100), _demand(_ORG, 0, 0, 10))
    await _ask(auth, "r1", _demand(_ORG, 0, 10, 0))
    answer = await _ask(auth, "r2", _demand(_KEY, 0, 0, 100), _demand(_ORG, 0, 0, 1))
    assert [grant.granted for grant in answer.grants] == [100, 0]


async def test_changed_settings_hold_at_once(auth: _Auth) -> None:
    """From the next call on."""
    auth.service.limits = LimitsBlock(keys=LimitSettings(requests_per_minute=5))
    assert (await _one(auth, "r1", _demand(_KEY, 0, 0, 60))).total == 5
    auth.service.limits = LimitsBlock()
    assert (await _one(auth, "r1", _demand(_KEY, 0, 5, 60))).total == 0


@pytest.mark.parametrize(
    ("holder", "demands"),
    [
        ("", [_demand(_KEY, 0, 0, 1)]),
        ("r" * 201, [_demand(_KEY, 0, 0, 1)]),
        ("r", [RateDemand(wanted=1)]),
        ("r", [_demand(RateLimit(kind=RateSubjectKind.KEY, name="k"), 0, 0, 1)]),
        ("r", [_demand(RateLimit(meter=Meter.TOKENS, name="k"), 0, 0, 1)]),
        ("r", [_demand(RateLimit(kind=RateSubjectKind.KEY, meter=Meter.TOKENS), 0, 0, 1)]),
        ("r", [_demand(RateLimit(kind=RateSubjectKind.KEY, meter=Meter.TOKENS, name="k" * 257), 0, 0, 1)]),
        ("r", [_demand(RateLimit(kind=RateSubjectKind.KEY, meter=Meter.TOKENS, name="k\0"), 0, 0, 1)]),
        ("r", [_demand(_KEY, 0, -1, 1)]),
        ("r", [_demand(_KEY, 0, 0, -1)]),
        ("r", [_demand(_KEY, 2**63, 0, 1)]),
        ("r", [_demand(_ORG, 1, 0, 1)]),
        ("r", [_demand(_KEY, 0, 0, 1), _demand(_KEY, 0, 0, 1)]),
        ("r", [_demand(_KEY, 0, 0, 1)] * 1_001),
    ],
)
async def test_what_breaks_the_protocol_is_refused(
    auth: _Auth, holder: str, demands: list[RateDemand]
) -> None:
    """By its field, and nothing is counted."""
    with pytest.raises(InvalidRequest) as refused:
        await _ask(auth, holder, *demands)
    assert refused.value.param == ("demands" if holder == "r" else "holder")
    assert (await _ask(auth, "r2")).holders == 1


async def test_a_total_that_falls_is_refused_and_changes_nothing(auth: _Auth) -> None:
    """Not for the other limits of the call either."""
    await _ask(auth, "r1", _demand(_KEY, 9, 0, 1), _demand(_ORG, 0, 0, 3))
    with pytest.raises(InvalidRequest, match="fell"):
        await _ask(auth, "r1", _demand(_ORG, 0, 0, 0), _demand(_KEY, 8, 0, 1))
    assert (await _one(auth, "r2", _demand(_ORG, 0, 0, 10))).granted == 7


async def test_a_store_that_is_away_is_told_in_time(auth: _Auth, postgres_dsn: str) -> None:
    """UNAVAILABLE, within the time for one use of the store."""
    await _one(auth, "r1", _demand(_KEY, 0, 0, 1))
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        await connection.execute("LOCK TABLE auth.rate_limit IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(_SOON_S):
            with pytest.raises(UpstreamError):
                await _one(auth, "r1", _demand(_KEY, 0, 0, 1))
