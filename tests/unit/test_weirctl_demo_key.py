"""The demo key of `weir up`."""

from __future__ import annotations

from pathlib import Path

import pytest

from gen.weir.auth.v1 import CreateKeyRequest
from gen.weir.auth.v1.service import AuthClient
from meshkit.errors import KeyInvalid
from meshkit.inprocess import InProcessTransport
from meshkit.telemetry import Logger
from tests.fakes.admin_auth import ADMIN, AdminAuth
from tests.fakes.auth import token_of
from weirctl import admin_key, demo_key


@pytest.fixture
def auth() -> AdminAuth:
    """Who keeps the keys."""
    return AdminAuth()


def client(auth: AdminAuth) -> AuthClient:
    return AuthClient(InProcessTransport(auth, Logger("test"), caller="operator"))


async def test_it_is_made_with_the_home_s_admin_key(auth: AdminAuth, tmp_path: Path) -> None:
    """It may do the usual things, and its file is its owner's alone."""
    (tmp_path / "admin-key").write_text(ADMIN.text)
    token = await demo_key.ensure(tmp_path, client(auth), {})
    assert auth.requests == [CreateKeyRequest(org="demo", team="demo", label="made by weir up")]
    assert demo_key.read(tmp_path) == token
    assert (tmp_path / "demo-key").stat().st_mode & 0o777 == 0o600


async def test_one_that_works_is_kept(auth: AdminAuth, tmp_path: Path) -> None:
    """Then no admin key is needed."""
    (tmp_path / "admin-key").write_text(ADMIN.text)
    token = await demo_key.ensure(tmp_path, client(auth), {})
    (tmp_path / "admin-key").unlink()
    assert await demo_key.ensure(tmp_path, client(auth), {}) == token
    assert len(auth.requests) == 1


async def test_one_that_auth_does_not_know_is_replaced(auth: AdminAuth, tmp_path: Path) -> None:
    """As after the database was thrown away."""
    (tmp_path / "admin-key").write_text(ADMIN.text)
    (tmp_path / "demo-key").write_text(token_of(77).text)
    assert await demo_key.ensure(tmp_path, client(auth), {}) != token_of(77).text


async def test_the_home_s_admin_key_comes_first(auth: AdminAuth, tmp_path: Path) -> None:
    """What the environment has may be another Weir's; it is used where the home has none."""
    foreign, own = {admin_key.VARIABLE: token_of(5).text}, {admin_key.VARIABLE: ADMIN.text}
    with pytest.raises(KeyInvalid):
        await demo_key.ensure(tmp_path, client(auth), foreign)
    assert await demo_key.ensure(tmp_path, client(auth), own)
    (tmp_path / "demo-key").unlink()
    (tmp_path / "admin-key").write_text(ADMIN.text)
    assert await demo_key.ensure(tmp_path, client(auth), foreign)


async def test_without_an_admin_key_it_says_so(auth: AdminAuth, tmp_path: Path) -> None:
    """`weir up` shows the text."""
    with pytest.raises(admin_key.NoAdminKey, match="admin-key"):
        await demo_key.ensure(tmp_path, client(auth), {})
