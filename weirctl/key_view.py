"""How a key is shown: as a line of a table, as a page, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from gen.weir.auth.v1 import Key, Limits
from gen.weir.type.v1 import Principal
from meshkit.errors import shown as one_line
from meshkit.scopes import name_of, scopes_of
from weirctl import spans, table

_HEADING = ("KEY", "TEAM", "LABEL", "OWNER", "SCOPES", "CREATED", "STATE")
_LONGEST_CELL = 40
_LONGEST_LINE = 2_000
_LIMITS = (
    ("requests_per_minute", "requests a minute"),
    ("tokens_per_minute", "tokens a minute"),
    ("concurrent_requests", "requests at once"),
    ("context_tokens", "tokens of context"),
)


def listed(keys: Sequence[Key], now: datetime) -> str:
    """The table."""
    return table.render(_HEADING, [_row(key, now) for key in keys])


def page(key: Key, now: datetime) -> str:
    """Every field, each on a line of its own."""
    return "\n".join(f"{name + ':':<12}{one_line(text, _LONGEST_LINE)}" for name, text in _lines(key, now))


def document(key: Key, now: datetime) -> dict[str, Any]:
    """Every field, for JSON: times in ISO 8601, scopes by name, a limit of 0 means none."""
    who = _holder(key)
    return {
        "id": key.id,
        "org": who.org,
        "team": who.team,
        "label": key.label,
        "owner": key.owner,
        "labels": dict(sorted(key.labels.items())),
        "state": state(key, now),
        "created_at": _iso(key.created_at),
        "expires_at": _iso(key.expires_at),
        "revoked_at": _iso(key.revoked_at),
        "scopes": _scopes(key),
        "models": list(key.models),
        "targets": list(key.targets),
        "networks": list(key.networks),
        "limits": {name: getattr(key.limits or Limits(), name) for name, _ in _LIMITS},
        "previous_until": _iso(key.previous_until),
        "sampling": key.sampling,
    }


def holder(key: Key) -> str:
    """`org/team`."""
    who = _holder(key)
    return one_line(f"{who.org}/{who.team}", _LONGEST_LINE)


def state(key: Key, now: datetime) -> str:
    """`revoked`, `expired` or `active`."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


def _row(key: Key, now: datetime) -> tuple[str, ...]:
    cells = (
        key.id,
        holder(key),
        key.label or "-",
        key.owner or "-",
        " ".join(_scopes(key)),
        f"{key.created_at:%Y-%m-%d}" if key.created_at is not None else "-",
        _state_in_words(key, now),
    )
    return tuple(one_line(cell, _LONGEST_CELL) for cell in cells)


def _state_in_words(key: Key, now: datetime) -> str:
    words = state(key, now)
    if words == "active" and key.expires_at is not None:
        words = f"until {key.expires_at:%Y-%m-%d}"
    return f"{words}, sampled {spans.percent(key.sampling)}" if key.sampling else words


def _lines(key: Key, now: datetime) -> Iterator[tuple[str, str]]:
    yield "key", key.id
    yield "holder", holder(key)
    yield "label", key.label or "-"
    yield "owner", key.owner or "-"
    yield "labels", ", ".join(f"{name}={value}" for name, value in sorted(key.labels.items())) or "-"
    yield "state", state(key, now)
    yield "created", spans.shown(key.created_at)
    yield "expires", spans.shown(key.expires_at, "never")
    if key.revoked_at is not None:
        yield "revoked", spans.shown(key.revoked_at)
    yield "scopes", " ".join(_scopes(key))
    yield "models", _all_or(key.models)
    yield "targets", _all_or(key.targets)
    yield "networks", _all_or(key.networks)
    yield "limits", _limits(key.limits)
    if key.previous_until is not None and key.previous_until > now:
        yield "rotation", f"its former secret is good until {spans.shown(key.previous_until)}"
    yield "sampling", _sampling(key.sampling)


def _sampling(part: float) -> str:
    return f"{spans.percent(part)} of its requests are stored, with prompt and answer" if part else "off"


def _limits(limits: Limits | None) -> str:
    numbers = [(getattr(limits or Limits(), name), unit) for name, unit in _LIMITS]
    return ", ".join(f"{number} {unit}" for number, unit in numbers if number) or "none of its own"


def _scopes(key: Key) -> list[str]:
    return [name_of(scope) for scope in sorted(scopes_of(key.scopes), key=int)]


def _all_or(patterns: Iterable[str]) -> str:
    return " ".join(patterns) or "all"


def _holder(key: Key) -> Principal:
    return Principal() if key.principal is None else key.principal


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds")
