"""Which limits apply to a request: those of its key, its team, its org and the model that it asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from gen.weir.auth.v1 import Limits, Meter, RateSubjectKind
from meshkit.limit_settings import LimitsBlock, LimitSettings
from services.router.domain.permissions import Caller

ANY_OTHER: Final = "*"
MAX_NAME_CHARS: Final = 256
"""Auth takes no longer names."""
MAX_REMEMBERED: Final = 10_000
"""Pairs of a key and a model whose limits are kept ready for use."""
_UNSENDABLE: Final = re.compile("[\0\ud800-\udfff]")
"""NUL, which Auth's store cannot keep, and halves of characters, which no message can carry."""

_WHOSE: Final = {
    RateSubjectKind.KEY: "the key",
    RateSubjectKind.TEAM: "the team",
    RateSubjectKind.ORG: "the org",
    RateSubjectKind.MODEL: "the model",
}


class Limit:
    """One limit of one subject, of one of the meters."""

    __slots__ = ("id", "kind", "meter", "name", "total")

    def __init__(self, kind: RateSubjectKind, name: str, meter: Meter, total: int) -> None:
        self.id = f"{kind.value}/{meter.value}/{name}"
        """Unlike that of any other limit; text, for its hash is made but once."""
        self.kind = kind
        self.name = name
        self.meter = meter
        self.total = total
        """As the router's own settings say; Auth's word counts more."""

    @property
    def whose(self) -> str:
        """The subject, in words. A key's id is not told: its holder knows which it is."""
        return _whose(self.kind, self.name)


class ContextLimit(NamedTuple):
    """The tokens of one request: its prompt and the answer that it asks for."""

    kind: RateSubjectKind
    name: str
    tokens: int

    @property
    def whose(self) -> str:
        """The subject, in words."""
        return _whose(self.kind, self.name)


@dataclass(frozen=True, slots=True)
class Applying:
    """What applies to a request."""

    limits: tuple[Limit, ...] = ()
    context: ContextLimit | None = None
    """The smallest one."""


NOTHING: Final = Applying()


class Subjects:
    """Finds what applies.

    Args:
        block: the settings' limits. A key's own take the place of `keys`.
    """

    def __init__(self, block: LimitsBlock) -> None:
        self._block = block
        self._remembered: dict[tuple[str, str], tuple[Caller, Applying]] = {}

    def of(self, caller: Caller, model: str) -> Applying:
        """What applies to a request of this caller for this model, by its name; NOTHING itself where nothing does."""
        place = (caller.principal.key_id, model)
        known = self._remembered.get(place)
        if known is not None and known[0] is caller:  # a caller is the same object for as long as its key is
            return known[1]
        self._remembered.pop(place, None)
        while len(self._remembered) >= MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        applying = self._found(caller, model)
        self._remembered[place] = (caller, applying)
        return applying

    def _found(self, caller: Caller, model: str) -> Applying:
        found = list(self._blocks(caller, model))
        limits = tuple(limit for kind, name, block in found for limit in _limits(kind, name, block))
        contexts = [
            ContextLimit(kind, name, block.context_tokens)
            for kind, name, block in found
            if block.context_tokens is not None
        ]
        context = min(contexts, key=lambda one: one.tokens, default=None)
        return Applying(limits, context) if limits or context else NOTHING

    def _blocks(self, caller: Caller, model: str) -> Iterator[tuple[RateSubjectKind, str, LimitSettings]]:
        who, block = caller.principal, self._block
        if who.key_id:
            own = block.keys if caller.limits is None else _settings(caller.limits)
            yield RateSubjectKind.KEY, _sendable(who.key_id), own
        if who.team:
            team = _sendable(f"{who.org}/{who.team}")
            yield RateSubjectKind.TEAM, team, _named(block.teams, team)
        if who.org:
            org = _sendable(who.org)
            yield RateSubjectKind.ORG, org, _named(block.orgs, org)
        yield RateSubjectKind.MODEL, model, _named(block.models, model)


def _sendable(name: str) -> str:
    """A name that Auth takes: others, which a JWT's claims may well hold, would spoil the whole call.

    Such a name is in no settings, so only `*` can be meant for it.
    """
    if len(name) <= MAX_NAME_CHARS and not _UNSENDABLE.search(name):
        return name
    return "sha256:" + sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _named(blocks: Mapping[str, LimitSettings], name: str) -> LimitSettings:
    return blocks.get(name) or blocks.get(ANY_OTHER) or LimitSettings()


def _settings(limits: Limits) -> LimitSettings:
    """A key's own limits in the settings' form: there 0 means none."""
    return LimitSettings.model_construct(
        requests_per_minute=max(0, limits.requests_per_minute) or None,
        tokens_per_minute=max(0, limits.tokens_per_minute) or None,
        concurrent_requests=max(0, limits.concurrent_requests) or None,
        context_tokens=max(0, limits.context_tokens) or None,
    )


def _limits(kind: RateSubjectKind, name: str, block: LimitSettings) -> Iterator[Limit]:
    totals = {
        Meter.REQUESTS: block.requests_per_minute,
        Meter.TOKENS: block.tokens_per_minute,
        Meter.CONCURRENT: block.concurrent_requests,
    }
    return (Limit(kind, name, meter, total) for meter, total in totals.items() if total is not None)


def _whose(kind: RateSubjectKind, name: str) -> str:
    return _WHOSE[kind] if kind is RateSubjectKind.KEY else f"{_WHOSE[kind]} {name}"
