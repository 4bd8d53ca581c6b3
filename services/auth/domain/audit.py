"""Rows of the audit: their names, and what keeps secrets out of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from gen.weir.auth.v1 import AuditEvent
from gen.weir.error.v1 import Reason
from gen.weir.type.v1 import Principal
from services.auth.domain.admin import Admin

KEYS_CREATE: Final = "keys.create"
KEYS_LIST: Final = "keys.list"
KEYS_SHOW: Final = "keys.show"
KEYS_ROTATE: Final = "keys.rotate"
KEYS_REVOKE: Final = "keys.revoke"
KEYS_SAMPLE: Final = "keys.sample"
AUDIT_LIST: Final = "audit.list"
SAMPLES_LIST: Final = "samples.list"

MAX_TEXT_CHARS: Final = 200
MAX_DETAIL_CHARS: Final = 1_000
MAX_COUNT: Final = 2**53

_CONTROL: Final[Mapping[int, str]] = MappingProxyType(
    dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029), " ")
)
_TOKEN: Final = re.compile(r"weir_([a-z2-7]{12})_[0-9A-Za-z]*")
_JWT: Final = re.compile(r"eyJ[0-9A-Za-z_-]+\.[0-9A-Za-z_-]*(\.[0-9A-Za-z_-]*)?")
_LONG_WORD: Final = re.compile(r"[0-9A-Za-z+/]{40,}")
"""A secret or a digest by itself: names and ids of ours are shorter."""


def done(admin: Admin, action: str, subject: str, at: datetime, detail: str = "") -> AuditEvent:
    """The row of something that was done."""
    return clean(
        AuditEvent(
            at=at, who=admin.principal, action=action, subject=subject, address=admin.address,
            peer=admin.peer, detail=detail, count=1,
        )
    )  # fmt: skip


def refused(admin: Admin, action: str, subject: str, at: datetime, reason: Reason, detail: str) -> AuditEvent:
    """The row of something that was not done."""
    return replace(done(admin, action, subject, at, detail), refused=reason)


def clean(event: AuditEvent) -> AuditEvent:
    """The event with texts that can be kept: one line each, not too long, and nothing that looks like a secret."""
    who = Principal() if event.who is None else event.who
    return replace(
        event,
        who=Principal(key_id=_short(who.key_id), org=_short(who.org), team=_short(who.team)),
        action=_short(event.action),
        subject=_short(event.subject),
        address=_short(event.address),
        peer=_short(event.peer),
        detail=scrubbed(event.detail, MAX_DETAIL_CHARS),
        count=min(max(event.count, 1), MAX_COUNT),
    )


def scrubbed(text: str, most: int) -> str:
    """`text` in one line of at most `most` characters, tokens and digests left out."""
    # Cut first to a length that is cheap to search; a secret that this tears is at the end, which the last cut takes.
    line = text[: 4 * most].encode("utf-8", "replace").decode("utf-8").translate(_CONTROL)
    line = _TOKEN.sub(r"weir_\1_...", line)
    line = _JWT.sub("...", line)
    return _LONG_WORD.sub("...", line)[:most]


def _short(text: str) -> str:
    return scrubbed(text, MAX_TEXT_CHARS)
