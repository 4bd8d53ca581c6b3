"""ListKeys, GetKey, RotateKey, RevokeKey and SetKeySampling over a store in memory."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from gen.weir.auth.v1 import (
    GetKeyRequest,
    Key,
    ListKeysRequest,
    RevokeKeyRequest,
    RotateKeyRequest,
    Scope,
    SetKeySamplingRequest,
)
from gen.weir.type.v1 import Principal
from meshkit.errors import Forbidden, InvalidRequest, WeirError
from meshkit.tokens import parse
from services.auth import paging
from services.auth.domain.admin import Admin
from services.auth.get_key import GetKey
from services.auth.list_keys import ListKeys
from services.auth.revoke_key import RevokeKey
from services.auth.rotate_key import RotateKey
from services.auth.set_key_sampling import SetKeySampling
from tests.fakes.auth import ADMIN, MOMENT, FakeKeyStore, key_of, token_of, writer

_TOKEN = token_of(1)
_UNKNOWN = token_of(9).key_id
_USUAL = writer(Scope.CHAT, Scope.EMBED)
_PLAIN = replace(ADMIN, scopes=frozenset({Scope.CHAT, Scope.EMBED, Scope.USAGE_READ}))


async def _store(*keys: Key) -> FakeKeyStore:
    store = FakeKeyStore()
    for key in keys or (key_of(_TOKEN),):
        await store.add(key)
    return store


def _list(store: FakeKeyStore) -> ListKeys:
    return ListKeys(store, store.audit, lambda: MOMENT)


def _rotate(store: FakeKeyStore) -> RotateKey:
    return RotateKey(store, lambda: MOMENT, secrets.token_bytes)


def _revoke(store: FakeKeyStore) -> RevokeKey:
    return RevokeKey(store, store.audit, lambda: MOMENT)


_Call = Callable[[FakeKeyStore, str, Admin], Awaitable[object]]
_CALLS: dict[str, _Call] = {
    "keys.show": lambda store, key_id, admin: GetKey(store, store.audit, lambda: MOMENT)(
        GetKeyRequest(key_id=key_id), admin
    ),
    "keys.rotate": lambda store, key_id, admin: _rotate(store)(RotateKeyRequest(key_id=key_id), admin),
    "keys.revoke": lambda store, key_id, admin: _revoke(store)(RevokeKeyRequest(key_id=key_id), admin),
    "keys.sample": lambda store, key_id, admin: SetKeySampling(store, lambda: MOMENT)(
        SetKeySamplingRequest(key_id=key_id, share=0.5), admin
    ),
}
every_call = pytest.mark.parametrize("action", list(_CALLS))
_OF_TEAMS = ["keys.show", "keys.rotate", "keys.revoke"]


@every_call
async def test_what_was_done_leaves_one_row(action: str) -> None:
    """Who, what, to which key; no digest of any secret."""
    store = await _store()
    await _CALLS[action](store, _TOKEN.key_id, ADMIN)
    (row,) = store.audit.events
    assert (row.who, row.action, row.subject) == (ADMIN.principal, action, _TOKEN.key_id)
    assert (row.at, row.refused) == (MOMENT, 0)
    assert _TOKEN.secret not in repr(row)


@every_call
async def test_an_administrator_is_told_that_there_is_no_such_key(action: str) -> None:
    """And what is no id at all; with the field at fault."""
    store = await _store()
    for key_id in (_UNKNOWN, "", "x", _TOKEN.text, "a\0"):
        with pytest.raises(InvalidRequest) as refused:
            await _CALLS[action](store, key_id, ADMIN)
        assert refused.value.param == "key_id"
        assert _TOKEN.secret not in refused.value.message


@every_call
async def test_without_a_scope_for_it_nothing_is_done(action: str) -> None:
    """Neither chat nor usage:read administers."""
    store = await _store()
    version = store.version
    with pytest.raises(Forbidden):
        await _CALLS[action](store, _TOKEN.key_id, _PLAIN)
    assert (store.version, store.audit.events) == (version, [])


@pytest.mark.parametrize("action", _OF_TEAMS)
async def test_a_team_reaches_its_own_keys(action: str) -> None:
    """With keys:write."""
    store = await _store()
    await _CALLS[action](store, _TOKEN.key_id, _USUAL)
    assert [row.action for row in store.audit.events] == [action]


@pytest.mark.parametrize("action", _OF_TEAMS)
@pytest.mark.parametrize("admin", [writer(org="other"), writer(team="other")])
async def test_another_teams_key_looks_like_none(action: str, admin: Admin) -> None:
    """The same error, word for word, as for a key that does not exist; nothing changes."""
    store = await _store()
    version = store.version
    said: list[tuple[type[WeirError], str]] = []
    for key_id in (_TOKEN.key_id, _UNKNOWN):
        with pytest.raises(Forbidden) as refused:
            await _CALLS[action](store, key_id, admin)
        said.append((type(refused.value), refused.value.message))
    assert said[0] == said[1]
    assert store.version == version


@pytest.mark.parametrize("action", ["keys.rotate", "keys.revoke"])
async def test_a_team_alters_no_administrators_key(action: str) -> None:
    """Not even one of its own org and team."""
    store = await _store(key_of(_TOKEN, scopes=[Scope.ADMIN]))
    version = store.version
    with pytest.raises(Forbidden):
        await _CALLS[action](store, _TOKEN.key_id, _USUAL)
    assert store.version == version


async def test_a_team_gets_no_new_scopes_by_a_rotation() -> None:
    """Whoever rotates a key holds it: only one with scopes that it has itself."""
    store = await _store(key_of(_TOKEN, scopes=[Scope.CHAT, Scope.USAGE_READ]))
    request = RotateKeyRequest(key_id=_TOKEN.key_id)
    with pytest.raises(Forbidden, match="usage:read"):
        await _rotate(store)(request, _USUAL)
    assert (await _rotate(store)(request, writer(Scope.CHAT, Scope.USAGE_READ))).token


async def test_no_digest_is_shown() -> None:
    """Neither by GetKey nor by ListKeys, nor by RevokeKey."""
    full = replace(key_of(_TOKEN), previous_sha256=bytes(range(32)), previous_until=MOMENT)
    store = await _store(full)
    shown = await GetKey(store, store.audit, lambda: MOMENT)(GetKeyRequest(key_id=full.id), ADMIN)
    listed = await _list(store)(ListKeysRequest(), ADMIN)
    ended = await _revoke(store)(RevokeKeyRequest(key_id=full.id), ADMIN)
    for key in (shown.key, *listed.keys, ended.key):
        assert key is not None
        assert (key.id, key.secret_sha256, key.previous_sha256) == (full.id, b"", b"")


@pytest.mark.parametrize("overlap", [None, timedelta(), timedelta(seconds=1), timedelta(days=30)])
async def test_a_rotation_keeps_the_id_and_for_a_while_the_secret(overlap: timedelta | None) -> None:
    """The new token has the same id and opens; the former secret stays until then, or ends at once."""
    store = await _store()
    made = await _rotate(store)(RotateKeyRequest(key_id=_TOKEN.key_id, overlap=overlap), ADMIN)
    token = parse(made.token)
    key = await store.find(_TOKEN.key_id)
    assert key is not None
    assert key == made.key
    assert (token.key_id, token.secret_sha256) == (_TOKEN.key_id, key.secret_sha256)
    assert token.secret != _TOKEN.secret
    if overlap:
        assert (key.previous_sha256, key.previous_until) == (_TOKEN.secret_sha256, MOMENT + overlap)
    else:
        assert (key.previous_sha256, key.previous_until) == (b"", None)


@pytest.mark.parametrize("overlap", [timedelta(days=30, microseconds=1), timedelta(microseconds=-1)])
async def test_an_overlap_out_of_bounds_is_refused(overlap: timedelta) -> None:
    """0 to 30 days; nothing changes."""
    store = await _store()
    with pytest.raises(InvalidRequest) as refused:
        await _rotate(store)(RotateKeyRequest(key_id=_TOKEN.key_id, overlap=overlap), ADMIN)
    assert refused.value.param == "overlap"
    assert await store.find(_TOKEN.key_id) == key_of(_TOKEN)


@pytest.mark.parametrize(
    "key", [key_of(_TOKEN, revoked_at=MOMENT - timedelta(days=1)), key_of(_TOKEN, expires_at=MOMENT)]
)
async def test_a_key_at_its_end_is_not_rotated(key: Key) -> None:
    """Neither a revoked nor an expired one; there is no row of it either."""
    store = await _store(key)
    with pytest.raises(InvalidRequest) as refused:
        await _rotate(store)(RotateKeyRequest(key_id=key.id), ADMIN)
    assert refused.value.param == "key_id"
    assert (await store.find(key.id), store.audit.events) == (key, [])


async def test_a_second_revocation_keeps_the_first_time() -> None:
    """It succeeds, changes nothing, and the audit has both."""
    store = await _store()
    first = await _revoke(store)(RevokeKeyRequest(key_id=_TOKEN.key_id), ADMIN)
    version = store.version
    later = RevokeKey(store, store.audit, lambda: MOMENT + timedelta(days=1))
    assert await later(RevokeKeyRequest(key_id=_TOKEN.key_id), ADMIN) == first
    assert first.key is not None
    assert (first.key.revoked_at, store.version) == (MOMENT, version)
    assert [row.detail for row in store.audit.events] == ["", "it was revoked before"]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
async def test_a_share_is_between_nothing_and_all(share: float) -> None:
    """Else nothing changes."""
    store = await _store()
    with pytest.raises(InvalidRequest) as refused:
        await SetKeySampling(store, lambda: MOMENT)(
            SetKeySamplingRequest(key_id=_TOKEN.key_id, share=share), ADMIN
        )
    assert refused.value.param == "share"


async def test_sampling_is_for_administrators_of_everything() -> None:
    """It is switched on and off; keys:write is not enough."""
    store = await _store()
    switch = SetKeySampling(store, lambda: MOMENT)
    for share in (1.0, 0.25, 0.0):
        request = SetKeySamplingRequest(key_id=_TOKEN.key_id, share=share)
        key = (await switch(request, ADMIN)).key
        assert key is not None
        assert (key.sampling, key.secret_sha256) == (share, b"")
        with pytest.raises(Forbidden):
            await switch(request, _USUAL)


def _keys(count: int) -> list[Key]:
    keys = [key_of(token_of(number)) for number in range(1, count + 1)]
    return [
        replace(key, created_at=MOMENT + timedelta(microseconds=number // 2))
        for number, key in enumerate(keys)
    ]


async def test_pages_lead_through_all_keys_newest_first() -> None:
    """Each once, also where several were made at the same moment, and with new ones made meanwhile."""
    keys = _keys(7)
    store = await _store(*keys)
    found: list[str] = []
    page_token = ""
    while True:
        page = await _list(store)(ListKeysRequest(page_size=3, page_token=page_token), ADMIN)
        found += [key.id for key in page.keys]
        await store.add(replace(key_of(token_of(100 + len(found))), created_at=MOMENT + timedelta(days=1)))
        page_token = page.next_page_token
        if not page_token:
            break
    assert len(found) == 7
    assert sorted(found) == sorted(key.id for key in keys)
    moments = {key.id: key.created_at for key in keys}
    assert [moments[key_id] for key_id in found] == sorted(
        (moment for moment in moments.values() if moment), reverse=True
    )


async def test_the_ended_are_listed_on_request() -> None:
    """Revoked and expired ones; those that end later are not among them."""
    ended = [key_of(token_of(2), revoked_at=MOMENT), key_of(token_of(3), expires_at=MOMENT)]
    living = [key_of(token_of(1)), key_of(token_of(4), expires_at=MOMENT + timedelta(seconds=1))]
    store = await _store(*living, *ended)
    usual = await _list(store)(ListKeysRequest(), ADMIN)
    every = await _list(store)(ListKeysRequest(ended=True), ADMIN)
    assert {key.id for key in usual.keys} == {key.id for key in living}
    assert {key.id for key in every.keys} == {key.id for key in (*living, *ended)}


async def test_org_and_team_narrow_the_list_and_a_team_sees_its_own() -> None:
    """For keys:write the filter is set; to ask for others is forbidden, whether there are any or not."""
    others = [
        replace(key_of(token_of(2)), principal=Principal(key_id="b", org="acme", team="ads")),
        replace(key_of(token_of(3)), principal=Principal(key_id="c", org="umbra", team="search")),
    ]
    store = await _store(key_of(_TOKEN), *others)

    async def listed(admin: Admin, org: str = "", team: str = "") -> list[str]:
        page = await _list(store)(ListKeysRequest(org=org, team=team), admin)
        return sorted(key.id for key in page.keys)

    assert len(await listed(ADMIN)) == 3
    assert len(await listed(ADMIN, "acme")) == 2
    assert await listed(ADMIN, "", "search") == sorted([_TOKEN.key_id, others[1].id])
    assert await listed(_USUAL) == await listed(_USUAL, "acme", "search") == [_TOKEN.key_id]
    for org, team in (("umbra", ""), ("", "ads"), ("nobody", "nothing")):
        with pytest.raises(Forbidden):
            await listed(_USUAL, org, team)
    with pytest.raises(Forbidden):
        await listed(_PLAIN)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (ListKeysRequest(page_size=-1), "page_size"),
        (ListKeysRequest(page_size=1001), "page_size"),
        (ListKeysRequest(page_token="x"), "page_token"),
        (ListKeysRequest(page_token="a2V5OjE="), "page_token"),
        (ListKeysRequest(page_token="é"), "page_token"),
        (ListKeysRequest(page_token="x" * 100_000), "page_token"),
        (ListKeysRequest(page_token=paging.token("key:999999999999999999:a")), "page_token"),
    ],
)
async def test_a_page_that_is_none_is_refused(request_: ListKeysRequest, param: str) -> None:
    """Whatever was sent as a token: nonsense, one cut off, a moment that no calendar has."""
    with pytest.raises(InvalidRequest) as refused:
        await _list(await _store())(request_, ADMIN)
    assert refused.value.param == param
