"""CreateKey: makes a key and tells its token once."""

from __future__ import annotations

from datetime import datetime

from gen.weir.auth.v1 import CreateKeyRequest, CreateKeyResponse, Key
from gen.weir.type.v1 import Principal
from meshkit.scopes import name_of
from meshkit.tokens import Token, mint
from services.auth import key_fields as fields
from services.auth import reach
from services.auth.domain.admin import Admin
from services.auth.domain.audit import KEYS_CREATE, done
from services.auth.ports import Clock, KeyStore, RandomBytes


class CreateKey:
    """Keeps SHA-256 of the secret alone; the secret itself is in the answer and nowhere else."""

    def __init__(self, store: KeyStore, now: Clock, random_bytes: RandomBytes) -> None:
        self._store = store
        self._now = now
        self._random_bytes = random_bytes

    async def __call__(self, request: CreateKeyRequest, admin: Admin) -> CreateKeyResponse:
        """The new key and its token.

        Raises InvalidRequest naming the field at fault; Forbidden for what is beyond the caller's reach
        (services.auth.reach).
        """
        reach.need_administrator(admin)
        token, now = mint(self._random_bytes), self._now()
        key = _key(request, token, now)
        reach.check_team(admin, Principal(org=request.org, team=request.team))
        reach.check_gift(admin, key.scopes)
        await self._store.add(key, done(admin, KEYS_CREATE, key.id, now, _detail(key)))
        return CreateKeyResponse(key=key, token=token.text)


def _key(request: CreateKeyRequest, token: Token, now: datetime) -> Key:
    org, team = fields.name("org", request.org), fields.name("team", request.team)
    return Key(
        id=token.key_id,
        secret_sha256=token.secret_sha256,
        principal=Principal(key_id=token.key_id, org=org, team=team),
        label=fields.text("label", request.label, fields.MAX_LABEL_CHARS),
        created_at=now,
        expires_at=fields.future(request.expires_at, now),
        models=fields.patterns("models", request.models),
        targets=fields.patterns("targets", request.targets),
        owner=fields.text("owner", request.owner, fields.MAX_NAME_CHARS),
        labels=fields.labels(request.labels),
        networks=fields.networks(request.networks),
        scopes=fields.scopes(request.scopes),
        limits=fields.limits(request.limits),
    )


def _detail(key: Key) -> str:
    principal = Principal() if key.principal is None else key.principal
    scopes = ",".join(map(name_of, key.scopes))
    ends = "never" if key.expires_at is None else key.expires_at.isoformat(timespec="seconds")
    return f"org {principal.org}, team {principal.team}, scopes {scopes}, ends {ends}, label {key.label}"
