"""Auth's ports in memory. They pass the suite of the real adapters (tests/ports/test_auth_store.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from gen.weir.auth.v1 import Key
from gen.weir.type.v1 import Principal
from meshkit.errors import UpstreamError
from meshkit.tokens import Token, mint
from services.auth.domain.key_set import Change
from services.auth.ports import KeyIdTaken, StoreRead

MOMENT = datetime(2031, 4, 5, 6, 7, 8, 901_234, tzinfo=UTC)


class FakeKeyStore:
    """KeyStore in memory; any number of feeds may follow it."""

    def __init__(self, version: int = 1) -> None:
        self.away = False
        """While set, every use raises UpstreamError."""
        self.version = version
        self.changes: dict[str, Change] = {}
        self._changed = asyncio.Event()

    async def add(self, key: Key) -> None:
        """Keeps a new key."""
        self.check()
        if key.id in self.changes:
            raise KeyIdTaken(key.id)
        self.put(key)

    async def find(self, key_id: str) -> Key | None:
        """The key as it is now."""
        self.check()
        change = self.changes.get(key_id)
        return None if change is None else change.key

    def put(self, key: Key) -> int:
        """What an administrator does by hand: makes or alters a key. The version of the change."""
        self.version += 1
        self.changes.pop(key.id, None)
        self.changes[key.id] = Change(self.version, key)
        self._wake()
        return self.version

    def restore(self, version: int) -> None:
        """Goes back to an older state, as a restored backup does."""
        self.changes = {key_id: held for key_id, held in self.changes.items() if held.version <= version}
        self.version = version
        self._wake()

    def check(self) -> None:
        """Raises UpstreamError while the store is away."""
        if self.away:
            raise UpstreamError("the key store cannot be reached")

    async def changed(self) -> None:
        """Returns at the next change."""
        await self._changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class FakeKeyFeed:
    """KeyFeed over a FakeKeyStore."""

    def __init__(self, store: FakeKeyStore, *, notified: bool = True) -> None:
        self.reads: list[int] = []
        """The after_version of every reading tried."""
        self._store = store
        self._notified = notified
        self._seen = 0

    async def read(self, after_version: int) -> StoreRead:
        """What changed since."""
        self.reads.append(after_version)
        self._store.check()
        self._seen = self._store.version
        return StoreRead(
            self._store.version,
            [change for change in self._store.changes.values() if change.version > after_version],
        )

    async def wait(self, at_most: timedelta) -> None:
        """Returns when the store may have changed since the last reading, or after `at_most`."""
        if self._notified and not self._store.away and self._store.version != self._seen:
            return
        try:
            async with asyncio.timeout(at_most.total_seconds()):
                await (self._store.changed() if self._notified else asyncio.Event().wait())
        except TimeoutError:
            return

    async def close(self) -> None:
        """Holds nothing."""


def token_of(number: int) -> Token:
    """A well-formed token, always the same for the same number."""
    return mint(lambda count: number.to_bytes(count, "big"))


def key_of(
    token: Token,
    *,
    expires_at: datetime | None = None,
    revoked_at: datetime | None = None,
    models: Sequence[str] = (),
    targets: Sequence[str] = (),
) -> Key:
    """The key that `token` opens."""
    return Key(
        id=token.key_id,
        secret_sha256=token.secret_sha256,
        principal=Principal(key_id=token.key_id, org="acme", team="search"),
        label="a key",
        created_at=MOMENT,
        expires_at=expires_at,
        revoked_at=revoked_at,
        models=list(models),
        targets=list(targets),
    )


def revoked(key: Key) -> Key:
    """The same key, revoked."""
    return replace(key, revoked_at=MOMENT)
