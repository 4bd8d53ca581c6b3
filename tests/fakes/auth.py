"""Auth's ports in memory. They pass the suite of the real adapters (tests/ports/test_auth_store.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from gen.weir.auth.v1 import AuditEvent, Key, Scope
from gen.weir.error.v1 import Reason
from gen.weir.type.v1 import Principal
from meshkit.codec import mesh_codec
from meshkit.errors import UpstreamError
from meshkit.tokens import Token, mint
from services.auth.domain.admin import Admin
from services.auth.domain.key_set import Change
from services.auth.domain.pages import AuditQuery, KeyPlace, KeyQuery
from services.auth.ports import KeyIdTaken, NewSecret, StoreRead

MOMENT = datetime(2031, 4, 5, 6, 7, 8, 901_234, tzinfo=UTC)


def change_of(version: int, key: Key) -> Change:
    """A change after which the key is like this."""
    return Change(version, key.id, mesh_codec().encode(key), partial(mesh_codec().decode, Key))


class FakeAuditLog:
    """AuditLog in memory."""

    def __init__(self) -> None:
        self.away = False
        """While set, every use raises UpstreamError."""
        self.events: list[AuditEvent] = []
        """In the order of writing."""
        self._last = 0

    async def add(self, events: Sequence[AuditEvent]) -> None:
        """Keeps events."""
        self.check()
        for event in events:
            self._last += 1
            self.events.append(replace(event, id=self._last, at=event.at or MOMENT))

    async def page(self, query: AuditQuery) -> list[AuditEvent]:
        """Rows, newest first."""
        self.check()
        rows = [event for event in reversed(self.events) if _fits(event, query)]
        return rows[: query.most]

    async def forget(self, before: datetime, most: int) -> int:
        """Ends rows."""
        self.check()
        old = sorted((event for event in self.events if _at(event) < before), key=_at)[:most]
        self.events = [event for event in self.events if event not in old]
        return len(old)

    def check(self) -> None:
        """Raises UpstreamError while the store is away."""
        if self.away:
            raise UpstreamError("the key store cannot be reached")


def _at(event: AuditEvent) -> datetime:
    assert event.at is not None
    return event.at


def _fits(event: AuditEvent, query: AuditQuery) -> bool:
    assert event.who is not None
    return (
        (query.since is None or _at(event) >= query.since)
        and query.key_id in {"", event.who.key_id}
        and (not query.refused or event.refused != Reason.UNSPECIFIED)
        and (query.below is None or event.id < query.below)
    )


class FakeKeyStore:
    """KeyStore in memory; any number of feeds may follow it."""

    def __init__(self, version: int = 1) -> None:
        self.away = False
        """While set, every use raises UpstreamError."""
        self.version = version
        self.changes: dict[str, Change] = {}
        self.audit = FakeAuditLog()
        """Takes the rows of changes."""
        self._changed = asyncio.Event()

    async def add(self, key: Key, event: AuditEvent | None = None) -> None:
        """Keeps a new key."""
        self.check()
        if key.id in self.changes:
            raise KeyIdTaken(key.id)
        await self._note(event)
        self.put(key)

    async def find(self, key_id: str) -> Key | None:
        """The key as it is now."""
        self.check()
        change = self.changes.get(key_id)
        return None if change is None else change.key

    async def page(self, query: KeyQuery) -> list[Key]:
        """Keys, newest first."""
        self.check()
        keys = sorted((change.key for change in self.changes.values()), key=_place, reverse=True)
        return [key for key in keys if _is_asked_for(key, query)][: query.most]

    async def rotate(self, key_id: str, secret: NewSecret, event: AuditEvent) -> Key | None:
        """Gives a living key a new secret."""
        key = await self.find(key_id)
        if key is None or not _lives(key, secret.at):
            return None
        overlaps = secret.previous_until is not None
        return await self._alter(
            replace(
                key,
                secret_sha256=secret.sha256,
                previous_sha256=key.secret_sha256 if overlaps else b"",
                previous_until=secret.previous_until,
            ),
            event,
        )

    async def revoke(self, key_id: str, at: datetime, event: AuditEvent) -> Key | None:
        """Ends a key."""
        key = await self.find(key_id)
        if key is None or key.revoked_at is not None:
            return None
        return await self._alter(replace(key, revoked_at=at), event)

    async def sample(self, key_id: str, share: float, event: AuditEvent) -> Key | None:
        """Sets the share of requests that are kept."""
        key = await self.find(key_id)
        return None if key is None else await self._alter(replace(key, sampling=share), event)

    async def has_admin(self, at: datetime) -> bool:
        """Whether some admin key lives."""
        self.check()
        return any(
            Scope.ADMIN in change.key.scopes and _lives(change.key, at) for change in self.changes.values()
        )

    async def _alter(self, key: Key, event: AuditEvent) -> Key:
        await self._note(event)
        self.put(key)
        return key

    async def _note(self, event: AuditEvent | None) -> None:
        if event is not None:
            await self.audit.add([event])

    def put(self, key: Key) -> int:
        """What an administrator does by hand: makes or alters a key. The version of the change."""
        self.version += 1
        self.changes.pop(key.id, None)
        self.changes[key.id] = change_of(self.version, key)
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


def _lives(key: Key, at: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > at)


def _place(key: Key) -> KeyPlace:
    assert key.created_at is not None
    return KeyPlace(key.created_at, key.id)


def _is_asked_for(key: Key, query: KeyQuery) -> bool:
    assert key.principal is not None
    return (
        query.org in {"", key.principal.org}
        and query.team in {"", key.principal.team}
        and (query.living_at is None or _lives(key, query.living_at))
        and (query.after is None or _place(key) < query.after)
    )


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


ADMIN = Admin(
    Principal(key_id="adminadminad", org="weir", team="admin"),
    frozenset({Scope.ADMIN}),
    address="10.1.2.3",
    peer="operator",
)
"""One who may do everything."""


def writer(*more: Scope, org: str = "acme", team: str = "search") -> Admin:
    """One with keys:write, and these scopes besides."""
    principal = Principal(key_id="writerwriter", org=org, team=team)
    return Admin(principal, frozenset({Scope.KEYS_WRITE, *more}))


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
    scopes: Sequence[Scope] = (Scope.CHAT, Scope.EMBED),
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
        scopes=list(scopes),
    )


def revoked(key: Key) -> Key:
    """The same key, revoked."""
    return replace(key, revoked_at=MOMENT)
