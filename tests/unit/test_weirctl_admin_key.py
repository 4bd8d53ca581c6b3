"""Which key the command administers with, and what it says when that is none or a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from meshkit.errors import (
    Forbidden,
    InternalFault,
    InvalidRequest,
    KeyExpired,
    KeyInvalid,
    KeyRevoked,
    LedgerUnavailable,
    UpstreamError,
    UpstreamTimeout,
    WeirError,
)
from meshkit.settings import HOME_VARIABLE
from tests.fakes.admin_auth import ADMIN, AdminAuth
from tests.fakes.auth import token_of
from weirctl import admin_calls, admin_key, backend_parts, config
from weirctl.__main__ import main
from weirctl.surroundings import Surroundings

Said = pytest.CaptureFixture[str]
OTHER = token_of(5)


@pytest.fixture
def auth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AdminAuth:
    """Whom the commands ask; there is no admin key yet."""
    auth = AdminAuth()
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    monkeypatch.delenv(admin_key.VARIABLE, raising=False)
    monkeypatch.setattr(admin_calls, "transport_to", auth.transport_to())
    return auth


def test_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    """Each says where it was found; neither shows its token."""
    (tmp_path / "admin-key").write_text(f"{ADMIN.text}\n")
    of_file = admin_key.find(tmp_path, {})
    assert (of_file.token, of_file.source) == (ADMIN.text, str(tmp_path / "admin-key"))
    of_environment = admin_key.find(tmp_path, {admin_key.VARIABLE: f" {OTHER.text}\n"})
    assert (of_environment.token, of_environment.source) == (OTHER.text, admin_key.VARIABLE)
    assert of_environment.metadata == (("authorization", f"Bearer {OTHER.text}"),)
    assert OTHER.text not in repr(of_environment)
    assert (of_file.key_id, admin_key.AdminKey("x", "y").key_id) == (ADMIN.key_id, None)


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_without_a_key_it_says_where_one_is_looked_for(tmp_path: Path, content: bytes | None) -> None:
    """The variable and the file."""
    if content is not None:
        (tmp_path / "admin-key").write_bytes(content)
    with pytest.raises(admin_key.NoAdminKey, match=r"WEIR_ADMIN_KEY is not set, and .*/admin-key holds none"):
        admin_key.find(tmp_path, {admin_key.VARIABLE: ""})


def test_a_command_without_a_key(auth: AdminAuth, capsys: Said, tmp_path: Path) -> None:
    """Exit status 1, and what to do; Auth is not asked."""
    assert main(["keys", "list"]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "admin-key") in said
    assert "set WEIR_ADMIN_KEY" in said
    assert not auth.requests


def test_a_wrong_key_in_the_environment(
    auth: AdminAuth, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told that the variable is at fault, and never what was in it."""
    monkeypatch.setenv(admin_key.VARIABLE, OTHER.text)
    assert main(["audit"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("the key is not known (sent: the admin key of WEIR_ADMIN_KEY). Set WEIR_ADMIN_KEY")
    assert OTHER.secret not in said
    assert not auth.requests


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyRevoked("the key was revoked"), "the key was revoked (sent: the admin key of {file}). Set WEIR_ADMIN_KEY"),
        (KeyExpired("the key has expired"), "remove {file} and start Weir again"),
        (KeyInvalid("the key is not known"), "where none is left"),
        (Forbidden("the key lacks the scope admin"), "the key lacks the scope admin (sent: the key of {file})"),
        (UpstreamError("the key store cannot be reached"), "auth cannot answer now: the key store cannot be reached"),
        (UpstreamTimeout("the call's deadline passed"), "`weir status`"),
        (LedgerUnavailable("PostgreSQL cannot be used"), "auth cannot answer now: PostgreSQL"),
        (InvalidRequest("too long", param="label"), "label: too long\n"),
        (InvalidRequest("label: too long", param="label"), "label: too long\n"),
        (InternalFault("an internal fault"), "internal error; the log has it under request id"),
    ],
)  # fmt: skip
def test_every_refusal_says_what_to_do(
    auth: AdminAuth, capsys: Said, tmp_path: Path, error: WeirError, said: str
) -> None:
    """In one sentence or two, with exit status 1, no trace, and nothing on standard output."""
    (tmp_path / "admin-key").write_text(ADMIN.text)
    auth.refuses = error
    for argv in (["keys", "list"], ["keys", "create", "--org", "a", "--team", "b"], ["audit"], ["samples"]):
        assert main(argv) == 1
        shown = capsys.readouterr()
        assert said.format(file=tmp_path / "admin-key") in shown.err
        assert shown.out == ""


def test_a_new_secret_replaces_the_file_as_a_whole(tmp_path: Path) -> None:
    """For its owner alone, whatever lay about."""
    (tmp_path / "admin-key").write_text(ADMIN.text)
    (tmp_path / "admin-key").chmod(0o644)
    (tmp_path / ".admin-key.new").write_text("left by a crash")
    admin_key.replace(tmp_path, OTHER.text)
    assert [path.name for path in tmp_path.iterdir()] == ["admin-key"]
    assert (tmp_path / "admin-key").read_text() == f"{OTHER.text}\n"
    assert (tmp_path / "admin-key").stat().st_mode & 0o777 == 0o600


async def test_the_set_up_s_programs_do_not_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip runs with the user's environment, less every secret."""
    given: dict[str, str] = {}

    async def run_set_up(_: object, environment: Mapping[str, str], __: object) -> None:
        given.update(environment)

    monkeypatch.setattr(backend_parts, "run_set_up", run_set_up)
    environment = {HOME_VARIABLE: str(tmp_path), admin_key.VARIABLE: ADMIN.text, "PIP_INDEX_URL": "somewhere"}
    (tmp_path / "weir.yaml").write_text("")
    around = Surroundings(environment, tmp_path, None, sandbox=False, report=print)
    part = backend_parts.triton_part(config.read(tmp_path / "weir.yaml", environment, sandbox=False), around)
    await part.before_start()
    assert given["PIP_INDEX_URL"] == "somewhere"
    assert ADMIN.text not in given.values()
