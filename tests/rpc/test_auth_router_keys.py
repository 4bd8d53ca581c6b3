"""What a key may use, from the store to a router that watches: real Auth over PostgreSQL, the router's own parts."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from gen.rpc import Metadata, Transport
from gen.weir.auth.v1 import (
    CreateKeyRequest,
    Key,
    Limits,
    RevokeKeyRequest,
    RotateKeyRequest,
    Scope,
)
from gen.weir.auth.v1.service import AuthClient
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.errors import Forbidden, InvalidRequest, KeyInvalid, KeyRevoked
from meshkit.inprocess import InProcessTransport
from meshkit.server import MeshServer
from meshkit.settings import Listen
from meshkit.telemetry import Logger
from services.auth.bootstrap import AuthService, build
from services.auth.settings import AuthBlock, AuthSettings
from services.router.adapters.key_set import KeySet
from services.router.ask_auth import AskAuth
from services.router.authenticate import Authenticate
from services.router.clock import SystemClock
from services.router.domain.permissions import Caller, Permissions
from services.router.identity_settings import IdentitySettings

_SOON_S = 10.0
_LIMIT = timedelta(seconds=5)


@dataclass
class _Mesh:
    """A running Auth, and what a router has of it."""

    auth: AuthClient
    keys: KeySet
    authenticate: Authenticate
    dsn: str
    admin: Metadata
    """With the first admin key."""

    async def permissions(self, token: str) -> Permissions:
        """Of a request with this token."""
        return (await self.caller(token)).permissions

    async def caller(self, token: str, address: str = "", *scopes: Scope) -> Caller:
        """Of a request with this token from this address that needs one of these scopes."""
        needed = scopes or (Scope.CHAT,)
        return await self.authenticate.authenticate(f"Bearer {token}", lambda: address, *needed)

    async def alter(self, key: Key, models: list[str]) -> None:
        """What an administrator does by hand."""
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            await connection.execute("UPDATE auth.key SET models = %s WHERE id = %s", (models, key.id))

    async def until_held(self, key: Key, models: list[str]) -> None:
        """Returns once the router's copy has the key in this form."""
        await self.until(key, lambda held: held.models == models)

    async def until(self, key: Key, condition: Callable[[Key], bool]) -> None:
        """Returns once the router's copy has the key in a form for which this holds."""
        async with asyncio.timeout(_SOON_S):
            while (held := self.keys.find(key.id)) is None or not condition(held):  # noqa: ASYNC110 - of another task
                await asyncio.sleep(0.005)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: sockets' names are limited to 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="weir-keys-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def log() -> Iterator[Logger]:
    """Says nothing."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    yield Logger("test", descriptor)
    os.close(descriptor)


async def _served(service: AuthService, folder: Path, log: Logger, exits: AsyncExitStack) -> Transport:
    address = f"unix:{folder}/auth.sock"
    listen = Listen(address, "", 0, timedelta(seconds=30))
    server = MeshServer("auth", service, listen, CollectorRegistry(), log)
    await server.start()
    exits.push_async_callback(server.stop)
    channel = open_channel(address)
    exits.push_async_callback(channel.close)
    return ChannelTransport(channel, mesh_codec())


async def _inside(service: AuthService, folder: Path, log: Logger, exits: AsyncExitStack) -> Transport:
    del folder
    exits.push_async_callback(service.stop)
    await service.start()
    return InProcessTransport(service.servicer, log)


Start = Callable[[AuthService, Path, Logger, AsyncExitStack], Awaitable[Transport]]


@pytest.fixture(params=[_served, _inside], ids=["separate", "compact"])
async def mesh(
    request: pytest.FixtureRequest, postgres_dsn: str, folder: Path, log: Logger
) -> AsyncIterator[_Mesh]:
    """Auth, and a router that watches it."""
    start: Start = request.param
    block = AuthBlock(heartbeat_s=0.1, poll_s=0.05)
    async with AsyncExitStack() as exits:
        service = build(
            AuthSettings(postgres_dsn=postgres_dsn, auth=block, home=folder), CollectorRegistry(), log
        )
        auth = AuthClient(await start(service, folder, log, exits))
        keys = KeySet(auth, _LIMIT, _LIMIT, time.monotonic, log)
        watch = asyncio.create_task(keys.watch())
        exits.callback(watch.cancel)
        clock = SystemClock()
        ask = AskAuth(keys.ask, clock, IdentitySettings(), refused_for=_LIMIT, refused_keys=10)
        authenticate = Authenticate(keys, ask, clock, max_stale=_LIMIT, unknown_fresh=_LIMIT, callers=10)
        async with asyncio.timeout(_SOON_S):
            await keys.loaded()
        key = (folder / "admin-key").read_text().strip()
        yield _Mesh(auth, keys, authenticate, postgres_dsn, (("authorization", f"Bearer {key}"),))


async def _create(mesh: _Mesh, models: list[str], targets: list[str]) -> tuple[Key, str]:
    request = CreateKeyRequest(org="acme", team="search", models=models, targets=targets)
    made = await mesh.auth.create_key(request, metadata=mesh.admin)
    assert made.key is not None
    return made.key, made.token


async def test_a_new_key_is_limited_from_its_first_request(mesh: _Mesh) -> None:
    """Whether the router has heard of it by then or has to ask."""
    key, token = await _create(mesh, ["gpt-*"], ["cloud"])
    assert (key.models, key.targets) == (["gpt-*"], ["cloud"])
    for _ in range(2):
        permissions = await mesh.permissions(token)
        assert permissions.may_use_model("gpt-4o")
        assert not permissions.may_use_model("local")
        assert permissions.may_use_target("cloud")
        assert not permissions.may_use_target("local")
        await mesh.until_held(key, ["gpt-*"])


async def test_changed_permissions_reach_a_watching_router(mesh: _Mesh) -> None:
    """A key that was already used is narrowed, and widened again."""
    key, token = await _create(mesh, [], [])
    await mesh.until_held(key, [])
    assert (await mesh.permissions(token)).may_use_model("gpt-4o")
    await mesh.alter(key, ["local"])
    await mesh.until_held(key, ["local"])
    narrowed = await mesh.permissions(token)
    assert not narrowed.may_use_model("gpt-4o")
    assert narrowed.may_use_model("local")
    await mesh.alter(key, [])
    await mesh.until_held(key, [])
    assert (await mesh.permissions(token)).may_use_model("gpt-4o")


async def test_a_snapshot_carries_permissions(mesh: _Mesh, log: Logger) -> None:
    """A router that starts later has them from its first moment."""
    key, _ = await _create(mesh, ["gpt-*"], ["local", "cloud"])
    await mesh.until_held(key, ["gpt-*"])
    late = KeySet(mesh.auth, _LIMIT, _LIMIT, time.monotonic, log)
    watch = asyncio.create_task(late.watch())
    async with asyncio.timeout(_SOON_S):
        await late.loaded()
    watch.cancel()
    assert late.find(key.id) == key


@pytest.mark.parametrize("field", ["models", "targets"])
async def test_a_pattern_out_of_bounds_is_named(mesh: _Mesh, field: str) -> None:
    """The error's param crosses the wire, and no key is made."""
    patterns = {"models": ["*"], "targets": ["*"], field: ["two words"]}
    with pytest.raises(InvalidRequest) as refused:
        await _create(mesh, **patterns)
    assert refused.value.param == field


async def test_what_a_key_may_do_reaches_the_router(mesh: _Mesh) -> None:
    """Scopes, networks and limits, by the first question as by the copy."""
    request = CreateKeyRequest(
        org="acme",
        team="search",
        scopes=[Scope.EMBED],
        networks=["10.0.0.0/8"],
        limits=Limits(requests_per_minute=7),
    )
    made = await mesh.auth.create_key(request, metadata=mesh.admin)
    assert made.key is not None
    for _ in range(2):
        caller = await mesh.caller(made.token, "10.1.2.3", Scope.EMBED)
        assert caller.limits == Limits(requests_per_minute=7)
        with pytest.raises(Forbidden):
            await mesh.caller(made.token, "10.1.2.3", Scope.CHAT)
        with pytest.raises(Forbidden):
            await mesh.caller(made.token, "11.1.2.3", Scope.EMBED)
        await mesh.until_held(made.key, [])


async def test_both_secrets_open_while_a_rotation_overlaps(mesh: _Mesh) -> None:
    """A second rotation without overlap ends both."""
    key, first = await _create(mesh, [], [])
    await mesh.until_held(key, [])
    rotation = RotateKeyRequest(key_id=key.id, overlap=timedelta(minutes=1))
    second = (await mesh.auth.rotate_key(rotation, metadata=mesh.admin)).token
    await mesh.until(key, lambda held: held.previous_until is not None)
    for token in (first, second):
        assert (await mesh.caller(token)).principal.key_id == key.id
    third = (await mesh.auth.rotate_key(RotateKeyRequest(key_id=key.id), metadata=mesh.admin)).token
    await mesh.until(key, lambda held: held.previous_until is None)
    assert (await mesh.caller(third)).principal.key_id == key.id
    for token in (first, second):
        with pytest.raises(KeyInvalid):
            await mesh.caller(token)


async def test_a_revoked_key_is_refused_within_a_second(mesh: _Mesh) -> None:
    """From the answer of RevokeKey on."""
    key, token = await _create(mesh, [], [])
    await mesh.until_held(key, [])
    await mesh.caller(token)
    await mesh.auth.revoke_key(RevokeKeyRequest(key_id=key.id), metadata=mesh.admin)
    begun = time.monotonic()
    await mesh.until(key, lambda held: held.revoked_at is not None)
    with pytest.raises(KeyRevoked):
        await mesh.caller(token)
    assert time.monotonic() - begun < 3.0  # milliseconds, on a machine that is not busy
