"""Which keys an administrator may see and alter, and which it may make.

A key with the scope admin may do everything. One with keys:write alone sees the keys of its own org and team, alters
those that have no scope admin, and gives no key a scope that it lacks itself, neither a new one nor by a new secret.
What else narrows a key - models, targets, networks, limits, its end - is not compared: it may make wider ones there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gen.weir.auth.v1 import Key, Scope
from gen.weir.type.v1 import Principal
from meshkit.errors import Forbidden, InvalidRequest
from meshkit.scopes import name_of, need, scopes_of
from meshkit.tokens import is_key_id
from services.auth.domain.admin import Admin
from services.auth.ports import KeyStore


def need_administrator(admin: Admin) -> None:
    """Raises Forbidden for one who administers no keys at all."""
    need(admin.scopes, Scope.KEYS_WRITE, Scope.ADMIN)


def check_team(admin: Admin, principal: Principal) -> None:
    """Raises Forbidden where keys of this org and team are not the administrator's."""
    if not admin.may_administer(principal):
        raise Forbidden("the key administers keys of its own org and team alone")


def check_gift(admin: Admin, scopes: Iterable[Scope]) -> None:
    """Raises Forbidden where the administrator lacks one of the scopes."""
    lacking = [name_of(scope) for scope in scopes if scope not in admin.scopes]
    if lacking and not admin.is_admin:
        raise Forbidden(f"the key cannot give the scope {lacking[0]}, which it lacks itself")


async def key_in_sight(store: KeyStore, key_id: str, admin: Admin) -> Key:
    """The key, for one who may see it.

    Raises InvalidRequest for what is no key's id, and to one with the scope admin for an unknown key. To others
    Forbidden, with the same words for a key of another team and for one that does not exist.
    """
    need_administrator(admin)
    if not is_key_id(key_id):
        raise InvalidRequest("key_id must be a key's public part: 12 characters of a-z2-7", param="key_id")
    key = await store.find(key_id)
    if key is None and admin.is_admin:
        raise InvalidRequest(f"there is no key {key_id}", param="key_id")
    if key is None or not admin.may_administer(Principal() if key.principal is None else key.principal):
        raise Forbidden("the key's own org and team have no such key")
    return key


async def key_in_reach(store: KeyStore, key_id: str, admin: Admin) -> Key:
    """The key, for one who may alter it. Raises what key_in_sight does, and Forbidden for an administrator's key."""
    key = await key_in_sight(store, key_id, admin)
    if not admin.is_admin and Scope.ADMIN in scopes_of(key.scopes):
        raise Forbidden("a key with the scope admin is altered by such a key alone")
    return key


def shown(key: Key) -> Key:
    """The key as people see it: without its digests."""
    return replace(key, secret_sha256=b"", previous_sha256=b"")
