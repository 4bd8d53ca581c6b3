"""What every genuine token must say: to whom, about whom, and when it holds."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from meshkit.errors import KeyExpired, KeyInvalid

MAX_SUBJECT_CHARS: Final = 255

_MAX_SECONDS: Final = 250_000_000_000
"""Well before the year 10000, where Python's calendar ends."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is demanded of the tokens of one issuer."""

    audiences: AbstractSet[str]
    skew: timedelta
    """How far its clock may be off."""
    max_lifetime: timedelta


@dataclass(frozen=True, slots=True)
class Holder:
    """About whom a token speaks, and for how long."""

    subject: str
    issued_at: datetime | None
    expires_at: datetime
    """The token's own end and the skew: until then it is good, here and at every router that asked."""


def checked(claims: Mapping[str, Any], rules: Rules, now: datetime) -> Holder:
    """The holder of a token whose signature and issuer are good.

    Raises KeyExpired after its end, else KeyInvalid; neither repeats anything of it.
    """
    if not _addressed(claims.get("aud"), rules.audiences):
        raise KeyInvalid("the token's audience is not this gateway")
    if "cnf" in claims:
        raise KeyInvalid("the token is bound to a key of its sender's (cnf), of which no proof is taken here")
    subject = claims.get("sub")
    if (
        not isinstance(subject, str)
        or not 1 <= len(subject) <= MAX_SUBJECT_CHARS
        or not subject.isprintable()
    ):
        raise KeyInvalid(f"the token's subject is no text of 1 to {MAX_SUBJECT_CHARS} printable characters")
    return _in_time(claims, Holder(subject, _moment(claims, "iat"), _end(claims) + rules.skew), rules, now)


def _in_time(claims: Mapping[str, Any], holder: Holder, rules: Rules, now: datetime) -> Holder:
    begin = _moment(claims, "nbf")
    if now >= holder.expires_at:
        raise KeyExpired("the token has expired")
    if begin is not None and begin > now + rules.skew:
        raise KeyInvalid("the token is not valid yet")
    if holder.issued_at is not None and holder.issued_at > now + rules.skew:
        raise KeyInvalid("the token was issued in the future")
    if holder.expires_at - rules.skew - (holder.issued_at or now) > rules.max_lifetime:
        hours = rules.max_lifetime / timedelta(hours=1)
        raise KeyInvalid(f"the token was made for longer than the {hours:g} hours that are allowed")
    return holder


def _addressed(audience: object, wanted: AbstractSet[str]) -> bool:
    if isinstance(audience, list):
        return all(isinstance(one, str) for one in audience) and not wanted.isdisjoint(audience)
    return isinstance(audience, str) and audience in wanted


def _end(claims: Mapping[str, Any]) -> datetime:
    end = _moment(claims, "exp")
    if end is None:
        raise KeyInvalid("the token does not say when it expires (exp)")
    return end


def _moment(claims: Mapping[str, Any], name: str) -> datetime | None:
    if name not in claims:
        return None
    seconds = claims[name]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _MAX_SECONDS:
        raise KeyInvalid(f"the token's {name} is no time in seconds since 1970")
    return datetime.fromtimestamp(seconds, UTC)
