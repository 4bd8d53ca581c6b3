"""A key as a row of auth.key, and back (services.auth.adapters.postgres_statements)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from psycopg.types.json import Jsonb

from gen.weir.auth.v1 import Key, Limits, Scope
from gen.weir.type.v1 import Principal
from meshkit.codec import mesh_codec
from meshkit.scopes import NAMES, name_of, scope_of

_SCOPES: Final[Mapping[str, int]] = MappingProxyType({name: int(scope_of(name)) for name in NAMES})
_SCOPE_SETS: Final = 100
"""Different sets of scopes that are remembered; few are in use."""
_NO_LIMITS: Final = (None,) * 4
_LIMITS: Final = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "context_tokens")
_USUAL: Final = (Scope.CHAT, Scope.EMBED)


def row_of(key: Key) -> tuple[Any, ...]:
    """The values of a new key, for `ADD`."""
    principal = Principal() if key.principal is None else key.principal
    scopes = [name_of(scope) for scope in key.scopes or _USUAL]
    return (
        key.id, key.secret_sha256, principal.org, principal.team, key.label,
        key.created_at, key.expires_at, key.revoked_at, key.models, key.targets,
        key.owner, Jsonb(key.labels), key.networks, scopes, *_limit_columns(key.limits),
        key.previous_sha256 or None, key.previous_until, key.sampling,
    )  # fmt: skip


def packed(row: Sequence[Any]) -> bytes:
    """The key of a row with the columns of `COLUMNS` in its wire form: straight from the row, 5 us a key."""
    (
        key_id, secret_sha256, org, team, label, created_us, expires_us, revoked_us, models, targets,
        owner, labels, networks, scopes, requests, tokens, concurrent, context,
        previous_sha256, previous_us, sampling,
    ) = row  # fmt: skip
    wire = mesh_codec().wire_class(Key)(
        id=key_id,
        secret_sha256=secret_sha256,
        principal={"key_id": key_id, "org": org, "team": team},
        label=label,
        created_at=_moment(created_us),
        expires_at=_moment(expires_us),
        revoked_at=_moment(revoked_us),
        models=models,
        targets=targets,
        owner=owner,
        labels=labels,
        networks=networks,
        scopes=_scopes_of(scopes),
        limits=_limits_of(requests, tokens, concurrent, context),
        previous_sha256=previous_sha256,
        previous_until=_moment(previous_us),
        sampling=sampling,
    )
    data: bytes = wire.SerializeToString()
    return data


def unpack(data: bytes) -> Key:
    """The key in its wire form."""
    return mesh_codec().decode(Key, data)


def key_of(row: Sequence[Any]) -> Key:
    """The key of a row with the columns of `COLUMNS`."""
    return unpack(packed(row))


def _limit_columns(limits: Limits | None) -> tuple[int | None, ...]:
    if limits is None:
        return (None,) * 4
    return (
        limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests, limits.context_tokens,
    )  # fmt: skip


def _limits_of(*columns: int | None) -> dict[str, int | None] | None:
    if columns == _NO_LIMITS:
        return None
    return dict(zip(_LIMITS, columns, strict=True))


def _moment(microseconds: int | None) -> dict[str, int] | None:
    """A Timestamp's fields, of microseconds since 1970."""
    if microseconds is None:
        return None
    seconds, rest = divmod(microseconds, 1_000_000)
    return {"seconds": seconds, "nanos": rest * 1_000}


@lru_cache(_SCOPE_SETS)
def _scopes_of(array: str) -> tuple[int, ...]:
    """Of PostgreSQL's text of an array.

    Scopes of a newer release give nothing here; a key with no others must not look like one without any.
    """
    names = array.strip("{}").replace('"', "").split(",")
    return tuple(_SCOPES.get(name, 0) for name in names)
