"""CreateKey: makes a key and tells its token once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from gen.weir.auth.v1 import CreateKeyRequest, CreateKeyResponse, Key
from gen.weir.type.v1 import Principal
from meshkit.errors import InvalidRequest
from meshkit.tokens import mint
from services.auth.domain.admin import Admin
from services.auth.ports import Clock, KeyStore, RandomBytes

MAX_NAME_CHARS = 100
MAX_LABEL_CHARS = 200
MAX_PATTERNS = 100
MAX_PATTERN_CHARS = 128

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PATTERN = re.compile(rf"[!-~]{{1,{MAX_PATTERN_CHARS}}}")


class CreateKey:
    """Keeps SHA-256 of the secret alone; the secret itself is in the answer and nowhere else."""

    def __init__(self, store: KeyStore, now: Clock, random_bytes: RandomBytes) -> None:
        self._store = store
        self._now = now
        self._random_bytes = random_bytes

    async def __call__(self, request: CreateKeyRequest, admin: Admin) -> CreateKeyResponse:
        """The new key and its token. Raises InvalidRequest naming the field at fault."""
        token = mint(self._random_bytes)
        now = self._now()
        key = Key(
            id=token.key_id,
            secret_sha256=token.secret_sha256,
            principal=Principal(
                key_id=token.key_id, org=_name("org", request.org), team=_name("team", request.team)
            ),
            label=_text("label", request.label, MAX_LABEL_CHARS),
            created_at=now,
            expires_at=_future(request.expires_at, now),
            models=_patterns("models", request.models),
            targets=_patterns("targets", request.targets),
        )
        await self._store.add(key)
        return CreateKeyResponse(key=key, token=token.text)


def _name(field: str, value: str) -> str:
    if not value:
        raise InvalidRequest(f"{field} is required", param=field)
    return _text(field, value, MAX_NAME_CHARS)


def _text(field: str, value: str, most: int) -> str:
    if len(value) > most:
        raise InvalidRequest(f"{field} has {len(value)} characters; {most} are allowed", param=field)
    if value != value.strip() or not value.isprintable():
        # "acme" and "acme " would be two payers that look like one.
        raise InvalidRequest(f"{field} has spaces at an end, or control characters", param=field)
    return value


def _patterns(field: str, values: Sequence[str]) -> list[str]:
    if len(values) > MAX_PATTERNS:
        raise InvalidRequest(f"{field} has {len(values)} patterns; {MAX_PATTERNS} are allowed", param=field)
    if not all(map(_PATTERN.fullmatch, values)):
        # An empty one would match nothing, and so would a space typed by mistake: a key that is of no use.
        raise InvalidRequest(
            f"{field}: a pattern is 1 to {MAX_PATTERN_CHARS} printable ASCII characters without spaces",
            param=field,
        )
    return list(values)


def _future(moment: datetime | None, now: datetime) -> datetime | None:
    if moment is None:
        return None
    if moment.tzinfo is None or moment <= now:
        raise InvalidRequest("expires_at must be in the future", param="expires_at")
    # Whole microseconds, which is what the store keeps: the answer is the key as stored.
    return _EPOCH + (moment - _EPOCH) // timedelta(microseconds=1) * timedelta(microseconds=1)
