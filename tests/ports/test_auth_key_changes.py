"""KeyStore's changes and lists, and AuditLog: one suite over the fakes and over PostgreSQL."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from gen.weir.auth.v1 import AuditEvent, Key, Limits, Scope
from gen.weir.error.v1 import Reason
from gen.weir.type.v1 import Principal
from meshkit.postgres import migrate, open_pool
from meshkit.tokens import mint
from services.auth.adapters.postgres import SCHEMA, PostgresKeyFeed, PostgresKeyStore, migrations
from services.auth.adapters.postgres_audit import PostgresAuditLog
from services.auth.adapters.postgres_turn import PostgresTurn
from services.auth.domain.audit import clean
from services.auth.domain.pages import AuditQuery, KeyPlace, KeyQuery
from services.auth.ports import AuditLog, KeyIdTaken, KeyStore, NewSecret
from tests.fakes.auth import MOMENT, FakeKeyStore, key_of

_TIMEOUT = timedelta(seconds=10)
_ALL = KeyQuery(most=100)
_ROWS = AuditQuery(most=100)


@dataclass
class _Bench:
    store: KeyStore
    audit: AuditLog


@pytest.fixture(params=["fake", "postgres"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[_Bench]:
    if request.param == "fake":
        store = FakeKeyStore()
        yield _Bench(store, store.audit)
        return
    dsn = request.getfixturevalue("postgres_dsn")
    await migrate(dsn, SCHEMA, migrations())
    async with AsyncExitStack() as exits:
        pool = open_pool(dsn, name="test", checkout_timeout=_TIMEOUT)
        exits.push_async_callback(pool.close)
        await pool.open()
        yield _Bench(PostgresKeyStore(pool, _TIMEOUT), PostgresAuditLog(pool, _TIMEOUT))


def _key(**fields: object) -> Key:
    key = key_of(mint(secrets.token_bytes))
    for name, value in fields.items():
        setattr(key, name, value)
    return key


def _event(action: str = "keys.create", **fields: Any) -> AuditEvent:
    return clean(replace(AuditEvent(at=MOMENT, who=Principal(), action=action), **fields))


async def _actions(bench: _Bench) -> list[str]:
    return [row.action for row in await bench.audit.page(_ROWS)]


async def test_a_key_of_every_field_is_found_as_it_was_added(bench: _Bench) -> None:
    """By its id, in a list, with IPv6 and labels in any script; limits of nothing are not none."""
    key = _key(
        owner="Zoë",
        labels={"stage": "prod", "a/b.c_d-e": "日本 \"'\\"},
        networks=["10.0.0.0/8", "2001:db8::/32", "::/0", "192.168.1.7/32"],
        scopes=[Scope.CHAT, Scope.USAGE_READ, Scope.KEYS_WRITE],
        limits=Limits(requests_per_minute=1, tokens_per_minute=10**12),
        previous_sha256=bytes(range(32)),
        previous_until=MOMENT + timedelta(microseconds=1),
        sampling=0.125,
    )
    plain = _key(limits=Limits())
    await bench.store.add(key, _event())
    await bench.store.add(plain)
    assert await bench.store.find(key.id) == key
    assert await bench.store.find(plain.id) == plain
    assert sorted(found.id for found in await bench.store.page(_ALL)) == sorted([key.id, plain.id])
    assert await _actions(bench) == ["keys.create"]


async def test_a_key_whose_id_is_taken_leaves_no_row(bench: _Bench) -> None:
    """Both or neither."""
    key = _key()
    await bench.store.add(key)
    with pytest.raises(KeyIdTaken):
        await bench.store.add(key, _event())
    assert await _actions(bench) == []


async def test_a_rotation_moves_the_secret(bench: _Bench) -> None:
    """To the former one while it overlaps; without overlap it is gone, with the one before it."""
    key = _key()
    await bench.store.add(key)
    until = MOMENT + timedelta(days=1)
    first = await bench.store.rotate(key.id, NewSecret(b"1" * 32, MOMENT, until), _event("keys.rotate"))
    assert first == replace(
        key, secret_sha256=b"1" * 32, previous_sha256=key.secret_sha256, previous_until=until
    )
    second = await bench.store.rotate(key.id, NewSecret(b"2" * 32, MOMENT, None), _event("keys.rotate"))
    assert second == replace(key, secret_sha256=b"2" * 32)
    assert await bench.store.find(key.id) == second
    assert await _actions(bench) == ["keys.rotate"] * 2


async def test_a_key_at_its_end_is_not_rotated(bench: _Bench) -> None:
    """Nor an unknown one; no row of it either."""
    keys = [_key(revoked_at=MOMENT), _key(expires_at=MOMENT)]
    for key in keys:
        await bench.store.add(key)
    for key_id in (*(key.id for key in keys), "aaaaaaaaaaaa"):
        secret = NewSecret(b"1" * 32, MOMENT, None)
        assert await bench.store.rotate(key_id, secret, _event("keys.rotate")) is None
    assert [await bench.store.find(key.id) for key in keys] == keys
    assert await _actions(bench) == []


async def test_a_key_is_revoked_once(bench: _Bench) -> None:
    """The first time stays."""
    key = _key()
    await bench.store.add(key)
    event = _event("keys.revoke")
    assert await bench.store.revoke(key.id, MOMENT, event) == replace(key, revoked_at=MOMENT)
    assert await bench.store.revoke(key.id, MOMENT + timedelta(days=1), event) is None
    assert await bench.store.revoke("aaaaaaaaaaaa", MOMENT, event) is None
    assert await bench.store.find(key.id) == replace(key, revoked_at=MOMENT)
    assert await _actions(bench) == ["keys.revoke"]


async def test_rotation_and_revocation_at_once_lose_neither(bench: _Bench) -> None:
    """Whoever comes first: the key ends revoked, and each change that was told as done was done."""
    for _ in range(10):
        key = _key()
        await bench.store.add(key)
        rotated, ended = await asyncio.gather(
            bench.store.rotate(key.id, NewSecret(b"1" * 32, MOMENT, None), _event("keys.rotate")),
            bench.store.revoke(key.id, MOMENT, _event("keys.revoke")),
        )
        assert ended is not None
        found = await bench.store.find(key.id)
        assert found is not None
        assert found.revoked_at == MOMENT
        assert found.secret_sha256 == (key.secret_sha256 if rotated is None else b"1" * 32)


async def test_sampling_is_set(bench: _Bench) -> None:
    """Of a known key."""
    key = _key()
    await bench.store.add(key)
    assert await bench.store.sample(key.id, 0.5, _event("keys.sample")) == replace(key, sampling=0.5)
    assert await bench.store.sample("aaaaaaaaaaaa", 0.5, _event("keys.sample")) is None
    assert await _actions(bench) == ["keys.sample"]


async def test_keys_are_listed_newest_first_and_narrowed(bench: _Bench) -> None:
    """By org, team and life; from behind a place, also among keys of one moment."""
    keys = [_key(created_at=MOMENT + timedelta(microseconds=number // 2)) for number in range(6)]
    keys[0].principal = Principal(key_id=keys[0].id, org="umbra", team="search")
    keys[1].revoked_at = keys[2].expires_at = MOMENT
    for key in keys:
        await bench.store.add(key)
    wanted = sorted(keys, key=lambda key: (key.created_at, key.id), reverse=True)

    async def listed(query: KeyQuery) -> list[Key]:
        return list(await bench.store.page(query))

    assert await listed(_ALL) == wanted
    assert await listed(KeyQuery(most=2)) == wanted[:2]
    for index, key in enumerate(wanted):
        assert key.created_at is not None
        place = KeyPlace(key.created_at, key.id)
        assert await listed(KeyQuery(most=100, after=place)) == wanted[index + 1 :]
    assert await listed(KeyQuery(most=9, org="umbra")) == [keys[0]]
    assert await listed(KeyQuery(most=9, org="umbra", team="ads")) == []
    living = await listed(KeyQuery(most=9, living_at=MOMENT))
    assert {key.id for key in living} == {key.id for key in (keys[0], *keys[3:])}


async def test_a_living_admin_is_known(bench: _Bench) -> None:
    """Neither a revoked nor an expired one counts."""
    assert not await bench.store.has_admin(MOMENT)
    for ended in (_key(revoked_at=MOMENT), _key(expires_at=MOMENT)):
        await bench.store.add(replace(ended, scopes=[Scope.ADMIN]))
    await bench.store.add(_key(scopes=[Scope.KEYS_WRITE]))
    assert not await bench.store.has_admin(MOMENT)
    await bench.store.add(_key(scopes=[Scope.CHAT, Scope.ADMIN], expires_at=MOMENT + timedelta(seconds=1)))
    assert await bench.store.has_admin(MOMENT)


async def test_rows_are_kept_in_order_and_found(bench: _Bench) -> None:
    """Newest first; by time, by key, refusals alone, from behind a row; every field as it was."""
    rows = [
        _event("a", at=MOMENT - timedelta(days=1), who=Principal(key_id="k", org="o", team="t")),
        _event("b", refused=Reason.KEY_INVALID, count=7, detail="日本", address="::1", peer="router"),
        _event("c", at=None, subject="x"),
    ]
    await bench.audit.add(rows)
    await bench.audit.add([])
    found = list(await bench.audit.page(_ROWS))
    assert [row.action for row in found] == ["c", "b", "a"]
    assert replace(found[1], id=0) == rows[1]
    assert replace(found[2], id=0) == rows[0]
    assert found[0].at is not None
    assert found[0].id > found[1].id > found[2].id

    async def listed(query: AuditQuery) -> list[str]:
        return [row.action for row in await bench.audit.page(query)]

    assert await listed(AuditQuery(most=1)) == ["c"]
    assert await listed(AuditQuery(most=9, key_id="k")) == ["a"]
    assert await listed(AuditQuery(most=9, refused=True)) == ["b"]
    assert await listed(AuditQuery(most=9, below=found[0].id)) == ["b", "a"]
    assert "a" not in await listed(AuditQuery(most=9, since=MOMENT - timedelta(hours=1)))


async def test_old_rows_end_oldest_first(bench: _Bench) -> None:
    """At most as many as asked for at once."""
    await bench.audit.add([_event(str(day), at=MOMENT - timedelta(days=day)) for day in (1, 3, 2)])
    assert await bench.audit.forget(MOMENT - timedelta(days=1), 1) == 1
    assert await _actions(bench) == ["2", "1"]
    assert await bench.audit.forget(MOMENT - timedelta(days=1), 100) == 1
    assert await bench.audit.forget(MOMENT - timedelta(days=1), 100) == 0
    assert await _actions(bench) == ["1"]


async def test_an_unknown_scope_gives_nothing(postgres_dsn: str) -> None:
    """A key that has only scopes of a newer release is not taken for one of before, that may chat."""
    await migrate(postgres_dsn, SCHEMA, migrations())
    key = _key()
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        await connection.execute("ALTER TABLE auth.key DROP CONSTRAINT key_scopes_check")
        await connection.execute(
            "INSERT INTO auth.key (id, secret_sha256, org, team, label, created_at, scopes)"
            " VALUES (%s, %s, 'o', 't', '', now(), %s)",
            (key.id, key.secret_sha256, ["dance", "usage:read"]),
        )
    feed = PostgresKeyFeed(postgres_dsn, _TIMEOUT, _TIMEOUT)
    (change,) = (await feed.read(0)).changes
    await feed.close()
    assert change.key.scopes == [Scope.UNSPECIFIED, Scope.USAGE_READ]


async def test_turns_are_taken_by_one_at_a_time(postgres_dsn: str) -> None:
    """Over processes: each has a connection of its own."""
    inside = 0

    async def take(turn: PostgresTurn) -> None:
        nonlocal inside
        async with turn():
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(take(PostgresTurn(postgres_dsn, _TIMEOUT)) for _ in range(5)))


@pytest.mark.parametrize(
    "statement",
    ["UPDATE auth.audit SET detail = 'forged'", "DELETE FROM auth.audit", "TRUNCATE auth.audit"],
)
async def test_the_audit_is_only_added_to(postgres_dsn: str, statement: str) -> None:
    """By hand neither altered nor ended."""
    await migrate(postgres_dsn, SCHEMA, migrations())
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.RaiseException, match="only added to"):
            await connection.execute(statement)
