"""Reads one top-level field of a JSON object whose values are still bytes."""

from __future__ import annotations

from typing import Any

import msgspec

from meshkit.errors import InvalidRequest

Fields = dict[str, msgspec.Raw]


def field(fields: Fields, name: str, kind: Any) -> Any:
    """One field as `kind`, None if absent. Raises InvalidRequest naming it."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"{name}: {error}", param=name) from error
