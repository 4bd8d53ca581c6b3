"""The first admin key, over a store in memory and a real file."""

import asyncio
import json
import os
import secrets
import stat
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gen.weir.auth.v1 import Scope
from meshkit.telemetry import Logger
from meshkit.tokens import mint, parse
from services.auth.adapters.token_file import SecretTokenFile
from services.auth.first_admin_key import FirstAdminKey
from tests.fakes.auth import MOMENT, FakeKeyStore, key_of, revoked


class _Turn:
    """One at a time, in this process."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def __call__(self) -> AsyncGenerator[None]:
        async with self._lock:
            await asyncio.sleep(0)
            yield


class _Rig:
    def __init__(self, folder: Path, log: Logger, log_path: Path) -> None:
        self.store = FakeKeyStore()
        self.path = folder / "home" / "admin-key"
        self.turn = _Turn()
        self._log = log
        self._log_path = log_path

    async def start(self) -> None:
        """What an auth process does at its start."""
        file = SecretTokenFile(self.path)
        await FirstAdminKey(self.store, self.turn, file, lambda: MOMENT, secrets.token_bytes, self._log)()

    @property
    def said(self) -> list[dict[str, str]]:
        """The log's lines."""
        return [json.loads(line) for line in self._log_path.read_text().splitlines()]

    def keep(self, text: str) -> None:
        """Puts a file there."""
        self.path.parent.mkdir()
        self.path.write_text(text)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[_Rig]:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    yield _Rig(tmp_path, Logger("auth", descriptor), path)
    os.close(descriptor)


async def test_an_empty_store_gets_an_admin_key(rig: _Rig) -> None:
    """Its token in a file for its owner's eyes, its digest in the store, and no more scopes than admin."""
    await rig.start()
    token = parse(rig.path.read_text().strip())
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600
    assert [entry.name for entry in rig.path.parent.iterdir()] == ["admin-key"]
    key = await rig.store.find(token.key_id)
    assert key is not None
    assert key.principal is not None
    assert key.secret_sha256 == token.secret_sha256
    assert (key.principal.org, key.principal.team, key.scopes) == ("weir", "admin", [Scope.ADMIN])
    assert [(row.action, row.subject) for row in rig.store.audit.events] == [("keys.create", key.id)]
    assert token.secret not in repr((rig.said, rig.store.audit.events))


async def test_many_processes_make_one(rig: _Rig) -> None:
    """Started at once or one after the other."""
    await asyncio.gather(*(rig.start() for _ in range(5)))
    await rig.start()
    assert len(rig.store.changes) == 1
    assert parse(rig.path.read_text().strip()).key_id in rig.store.changes


async def test_a_store_that_lost_the_key_gets_it_again(rig: _Rig) -> None:
    """Emptied, or the process ended between file and store: the file's key is the admin key."""
    token = mint(secrets.token_bytes)
    rig.keep(f"{token.text}\n")
    await rig.start()
    key = await rig.store.find(token.key_id)
    assert key is not None
    assert (key.secret_sha256, key.scopes) == (token.secret_sha256, [Scope.ADMIN])
    assert rig.path.read_text() == f"{token.text}\n"


async def test_without_a_file_an_admin_elsewhere_is_enough(rig: _Rig) -> None:
    """No second one is made; it is told."""
    await rig.store.add(key_of(mint(secrets.token_bytes), scopes=[Scope.ADMIN]))
    await rig.start()
    assert not rig.path.exists()
    assert len(rig.store.changes) == 1
    assert "some admin key lives" in rig.said[0]["event"]


@pytest.mark.parametrize(
    "ended", [{"revoked_at": MOMENT}, {"expires_at": MOMENT}, {"scopes": [Scope.KEYS_WRITE]}]
)
async def test_admins_that_have_ended_are_none(rig: _Rig, ended: dict[str, object]) -> None:
    """A new one is made."""
    key = key_of(mint(secrets.token_bytes), scopes=[Scope.ADMIN])
    for name, value in ended.items():
        setattr(key, name, value)
    await rig.store.add(key)
    await rig.start()
    assert len(rig.store.changes) == 2
    assert rig.path.exists()


@pytest.mark.parametrize("what", ["revoked", "rotated", "narrowed"])
async def test_an_altered_key_stays_as_it_is(rig: _Rig, what: str) -> None:
    """A revoked one above all; the log warns, without the secret."""
    token = mint(secrets.token_bytes)
    rig.keep(token.text)
    key = key_of(token, scopes=[Scope.ADMIN])
    if what == "revoked":
        key = revoked(key)
    elif what == "rotated":
        key.secret_sha256 = bytes(32)
    else:
        key.scopes = [Scope.CHAT]
    await rig.store.add(key)
    await rig.start()
    assert await rig.store.find(key.id) == key
    assert len(rig.store.changes) == 1
    (line,) = rig.said
    assert (line["level"], line["key_id"]) == ("warning", key.id)
    assert token.secret not in str(line)


def _as_nonsense(rig: _Rig) -> None:
    rig.keep("weir_typo\n")


def _as_a_folder(rig: _Rig) -> None:
    rig.path.mkdir(parents=True)


def _without_a_home(rig: _Rig) -> None:
    rig.path.parent.write_text("a file where the folder should be")


@pytest.mark.parametrize("spoil", [_as_nonsense, _as_a_folder, _without_a_home])
async def test_a_file_that_cannot_be_used_is_told_and_keeps_nobody_from_starting(
    rig: _Rig, spoil: Callable[[_Rig], None]
) -> None:
    """Nothing is overwritten, and no key is made whose token nobody has."""
    spoil(rig)
    await rig.start()
    assert rig.store.changes == {}
    assert [line["level"] for line in rig.said] == ["warning"]


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    """Whoever comes second is told."""
    file = SecretTokenFile(tmp_path / "key")
    file.write("first")
    with pytest.raises(FileExistsError):
        file.write("second")
    assert file.read() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


async def test_a_turn_that_cannot_be_had_stops_the_start(rig: _Rig) -> None:
    """The store's fault is raised, and nothing is made."""
    rig.store.away = True
    with pytest.raises(Exception, match="cannot be reached"):
        await rig.start()
    assert not rig.path.exists()
