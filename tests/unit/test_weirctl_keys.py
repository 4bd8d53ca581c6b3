"""`weir keys create` against Auth over a store in memory."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from gen.rpc import Transport
from meshkit.inprocess import InProcessTransport
from meshkit.telemetry import Logger
from meshkit.tokens import parse
from services.auth.authenticate import Authenticate
from services.auth.create_key import CreateKey
from services.auth.live_key_set import LiveKeySet
from services.auth.servicer import AuthServicer
from services.auth.watch_keys import WatchKeys
from tests.fakes.auth import MOMENT, FakeKeyStore
from weirctl import keys
from weirctl.__main__ import main

_CREATE = ("keys", "create", "--org", "acme", "--team", "search")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeKeyStore:
    """Where the command's keys end up."""
    store = FakeKeyStore()
    log = Logger("test", os.open(os.devnull, os.O_WRONLY))
    live = LiveKeySet(timedelta(seconds=1), lambda: 0.0)

    @asynccontextmanager
    async def transport_to(service: str, home: Path) -> AsyncIterator[Transport]:
        del home
        assert service == "auth"
        servicer = AuthServicer(
            Authenticate(store, lambda: MOMENT),
            WatchKeys(live, timedelta(seconds=1)),
            CreateKey(store, lambda: MOMENT, secrets.token_bytes),
        )
        yield InProcessTransport(servicer, log)

    monkeypatch.setattr(keys, "transport_to", transport_to)
    return store


def test_a_key_may_do_everything_unless_told_otherwise(
    store: FakeKeyStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """The token stands alone on standard output, and what it is good for beside it."""
    assert main([*_CREATE]) == 0
    said = capsys.readouterr()
    (change,) = store.changes.values()
    assert parse(said.out.strip()).key_id == change.key.id
    assert said.out.count("\n") == 1
    assert (change.key.models, change.key.targets) == ([], [])
    assert "Key for acme/search, expires: never, models: all, targets: all." in said.err


def test_models_and_targets_are_limited(store: FakeKeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    """Each option as often as wanted; the patterns are shown as they were kept."""
    argv = [*_CREATE, "--model", "gpt-*", "--target", "local", "--model", "auto", "--model=-x"]
    assert main(argv) == 0
    (change,) = store.changes.values()
    assert (change.key.models, change.key.targets) == (["gpt-*", "auto", "-x"], ["local"])
    assert "models: gpt-* auto -x, targets: local." in capsys.readouterr().err


def test_each_run_begins_without_limits(store: FakeKeyStore) -> None:
    """One command's patterns do not stick to the parser."""
    assert main([*_CREATE, "--model", "gpt-*"]) == 0
    assert main([*_CREATE]) == 0
    assert [change.key.models for change in store.changes.values()] == [["gpt-*"], []]


def test_a_pattern_that_auth_refuses_makes_no_key(
    store: FakeKeyStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1 and Auth's reason."""
    assert main([*_CREATE, "--target", "two words"]) == 1
    said = capsys.readouterr()
    assert "targets" in said.err
    assert (said.out, store.changes) == ("", {})


@pytest.mark.parametrize("days", ["1e9", "1e300", "inf", "nan", "-1e9"])
def test_an_end_beyond_the_calendar_is_wrong_use(
    store: FakeKeyStore, capsys: pytest.CaptureFixture[str], days: str
) -> None:
    """Exit status 2 and the option's name, no trace."""
    assert main([*_CREATE, f"--expires-days={days}"]) == 2
    assert "--expires-days" in capsys.readouterr().err
    assert not store.changes
