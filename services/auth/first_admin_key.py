"""The first admin key: made at the first start, so that there is somebody who can make the others."""

from __future__ import annotations

from gen.weir.auth.v1 import Key, Scope
from gen.weir.type.v1 import Principal
from meshkit.errors import KeyInvalid
from meshkit.telemetry import Logger
from meshkit.tokens import Token, mint, parse, same_digest
from services.auth.domain.admin import Admin
from services.auth.domain.audit import KEYS_CREATE, done
from services.auth.ports import Clock, KeyStore, RandomBytes, TokenFile, Turn

ORG = "weir"
TEAM = "admin"
LABEL = "the first admin key, made by auth"


class FirstAdminKey:
    """Sees to it that the key of the file is in the store, and makes file and key where there is no admin at all.

    The file comes before the key: where a start ends in between, the next one adds the key of the file.

    Args:
        turn: of all auth processes together, so that they make one key.
        file: with the token; only there.
    """

    def __init__(
        self, store: KeyStore, turn: Turn, file: TokenFile, now: Clock, random_bytes: RandomBytes, log: Logger
    ) -> None:
        self._store = store
        self._turn = turn
        self._file = file
        self._now = now
        self._random_bytes = random_bytes
        self._log = log

    async def __call__(self) -> None:
        """Once, at the start. A file that cannot be used is logged. Raises UpstreamError."""
        async with self._turn():
            try:
                await self._ensure()
            except OSError as error:
                self._log.warning("the admin key's file cannot be used", reason=error.strerror or str(error))

    async def _ensure(self) -> None:
        text = self._file.read()
        if text is not None:
            await self._ensure_kept(text)
        elif await self._store.has_admin(self._now()):
            self._log.info("no admin key's file here; some admin key lives")
        else:
            token = mint(self._random_bytes)
            self._file.write(token.text)
            await self._add(token)

    async def _ensure_kept(self, text: str) -> None:
        try:
            token = parse(text)
        except KeyInvalid as error:
            self._log.warning("the admin key's file holds no key", reason=error.message)
            return
        key = await self._store.find(token.key_id)
        if key is None:
            await self._add(token)
        elif fault := _fault(key, token):
            # Left as it is: whoever altered the key meant it.
            self._log.warning("the admin key of the file is of no use", key_id=key.id, reason=fault)

    async def _add(self, token: Token) -> None:
        principal = Principal(key_id=token.key_id, org=ORG, team=TEAM)
        key = Key(
            id=token.key_id,
            secret_sha256=token.secret_sha256,
            principal=principal,
            label=LABEL,
            created_at=self._now(),
            scopes=[Scope.ADMIN],
        )
        event = done(Admin(Principal(), frozenset()), KEYS_CREATE, key.id, self._now(), LABEL)
        await self._store.add(key, event)
        self._log.info("admin key made", key_id=key.id)


def _fault(key: Key, token: Token) -> str | None:
    if key.revoked_at is not None:
        return "it was revoked"
    if not same_digest(key.secret_sha256, token.secret_sha256):
        return "the file has a former secret"
    if Scope.ADMIN not in key.scopes:
        return "it lacks the scope admin"
    return None
