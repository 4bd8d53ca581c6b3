"""`weir keys` against an Auth in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gen.weir.auth.v1 import CreateKeyRequest, Key, Limits, RotateKeyRequest, Scope
from meshkit.scopes import NAMES
from meshkit.settings import HOME_VARIABLE
from meshkit.tokens import parse
from tests.fakes.admin_auth import ADMIN, AdminAuth
from tests.fakes.auth import MOMENT
from weirctl import admin_calls, admin_key, parser_keys
from weirctl.__main__ import main

Said = pytest.CaptureFixture[str]
_CREATE = ("keys", "create", "--org", "acme", "--team", "search")


@pytest.fixture
def auth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AdminAuth:
    """Whom the commands ask; the home has the admin key."""
    auth = AdminAuth()
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    monkeypatch.delenv(admin_key.VARIABLE, raising=False)
    (tmp_path / "admin-key").write_text(f"{ADMIN.text}\n")
    monkeypatch.setattr(admin_calls, "transport_to", auth.transport_to())
    return auth


def made(said: Said, *options: str) -> str:
    """The id of a key made by the command."""
    assert main([*_CREATE, *options]) == 0
    return parse(said.readouterr().out.strip()).key_id


def fields(page: str) -> dict[str, str]:
    """A page of a key, by the names of its lines."""
    pairs = (line.partition(":") for line in page.splitlines())
    return {name: text.strip() for name, _, text in pairs}


def test_a_key_has_the_usual_rights_unless_told_otherwise(auth: AdminAuth, capsys: Said) -> None:
    """The token stands alone on standard output, and what it is good for beside it."""
    assert main([*_CREATE]) == 0
    said = capsys.readouterr()
    (key,) = auth.keys.values()
    assert parse(said.out.strip()).key_id == key.id
    assert said.out.count("\n") == 1
    (request,) = auth.requests
    assert request == CreateKeyRequest(org="acme", team="search")
    shown = fields(said.err)
    assert (shown["key"], shown["holder"]) == (key.id, "acme/search")
    assert (shown["scopes"], shown["expires"], shown["limits"]) == ("chat embed", "never", "none of its own")
    assert {shown[name] for name in ("models", "targets", "networks")} == {"all"}
    assert said.out.strip() not in said.err


def test_every_option_reaches_auth(auth: AdminAuth, capsys: Said) -> None:
    """Those that may be given again keep their order; labels are pairs, of which a value may hold an equals sign."""
    argv = [
        *_CREATE, "--label", "index", "--owner", "sam", "--set-label", "env=prod", "--set-label", "q=a=b",
        "--model", "gpt-*", "--target", "local", "--model", "auto", "--model=-x",
        "--network", "10.0.0.0/8", "--network", "2001:db8::/32", "--scope", "chat", "--scope", "usage:read",
        "--requests-per-minute", "60", "--tokens-per-minute", "1000", "--concurrent-requests", "4",
        "--context-tokens", "8192", "--expires-days", "0.5",
    ]  # fmt: skip
    assert main(argv) == 0
    (request,) = auth.requests
    assert isinstance(request, CreateKeyRequest)
    assert request.expires_at is not None
    assert timedelta(hours=11) < request.expires_at - datetime.now(UTC) < timedelta(hours=13)
    assert request == CreateKeyRequest(
        org="acme", team="search", label="index", owner="sam", labels={"env": "prod", "q": "a=b"},
        models=["gpt-*", "auto", "-x"], targets=["local"], networks=["10.0.0.0/8", "2001:db8::/32"],
        scopes=[Scope.CHAT, Scope.USAGE_READ], expires_at=request.expires_at,
        limits=Limits(
            requests_per_minute=60, tokens_per_minute=1000, concurrent_requests=4, context_tokens=8192
        ),
    )  # fmt: skip
    shown = fields(capsys.readouterr().err)
    assert shown["limits"] == (
        "60 requests a minute, 1000 tokens a minute, 4 requests at once, 8192 tokens of context"
    )
    assert (shown["labels"], shown["models"]) == ("env=prod, q=a=b", "gpt-* auto -x")


def test_each_run_begins_anew(auth: AdminAuth) -> None:
    """One command's patterns do not stick to the parser."""
    assert main([*_CREATE, "--model", "gpt-*", "--scope", "admin"]) == 0
    assert main([*_CREATE]) == 0
    assert [key.models for key in auth.keys.values()] == [["gpt-*"], []]


def test_what_auth_refuses_makes_no_key(auth: AdminAuth, capsys: Said) -> None:
    """Exit status 1, the field and Auth's reason."""
    assert main([*_CREATE, "--model", "two words"]) == 1
    said = capsys.readouterr()
    assert said.err == "models[0]: a pattern holds a space\n"
    assert (said.out, auth.keys) == ("", {})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        *((["--expires-days", days], "--expires-days") for days in ("1e9", "1e300", "inf", "nan")),
        (["--expires-days=-1e9"], "--expires-days"),
        (["--scope", "everything"], "--scope: no scope 'everything' (scopes: chat, embed"),
        (["--set-label", "novalue"], "--set-label: 'novalue': write NAME=VALUE"),
        (["--set-label", "=x"], "--set-label: '=x': write NAME=VALUE"),
    ],
)
def test_wrong_use_asks_nobody(auth: AdminAuth, capsys: Said, options: Sequence[str], named: str) -> None:
    """Exit status 2 and the option's name, no trace."""
    assert main([*_CREATE, *options]) == 2
    said = capsys.readouterr()
    assert named in said.err
    assert (said.out, auth.requests) == ("", [])


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "x", "²"])
def test_a_limit_is_a_whole_number(auth: AdminAuth, capsys: Said, number: str) -> None:
    """0 would mean no limit, which is said by leaving the option out."""
    with pytest.raises(SystemExit) as ended:
        main([*_CREATE, f"--requests-per-minute={number}"])
    assert ended.value.code == 2
    assert "is no whole number from 1 on" in capsys.readouterr().err
    assert not auth.requests


def test_help_names_every_scope() -> None:
    """The list is written out there, because reading it would take longer than the command."""
    assert ", ".join(NAMES) == parser_keys.SCOPES


def test_a_list_is_a_table(auth: AdminAuth, capsys: Said) -> None:
    """Newest first, only of the org and team asked for; what ended is left out unless asked for."""
    first, second = made(capsys, "--label", "one"), made(capsys, "--scope", "admin", "--owner", "sam")
    auth.keys[first].revoked_at = MOMENT
    assert main(["keys", "list"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["KEY", "TEAM", "LABEL", "OWNER", "SCOPES", "CREATED", "STATE"]
    assert [row.split() for row in rows] == [
        [second, "acme/search", "-", "sam", "admin", "2031-04-05", "active"]
    ]
    assert main(["keys", "list", "--all"]) == 0
    assert [row.split()[0] for row in capsys.readouterr().out.splitlines()[1:]] == [second, first]
    assert main(["keys", "list", "--org", "other"]) == 0
    assert capsys.readouterr().out == "No keys.\n"
    assert main(["keys", "list", "--team", "search", "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)
    assert (only["id"], only["scopes"], only["state"]) == (second, ["admin"], "active")


def test_a_list_of_many_pages(auth: AdminAuth, capsys: Said) -> None:
    """All pages are asked for; where --limit leaves some out, it says so."""
    auth.largest_page = 2
    keys = [made(capsys) for _ in range(5)]
    assert main(["keys", "list"]) == 0
    said = capsys.readouterr()
    assert [row.split()[0] for row in said.out.splitlines()[1:]] == keys[::-1]
    assert said.err == ""
    assert main(["keys", "list", "--limit", "3"]) == 0
    said = capsys.readouterr()
    assert [row.split()[0] for row in said.out.splitlines()[1:]] == keys[:1:-1]
    assert "There are more" in said.err


def test_states(auth: AdminAuth, capsys: Said) -> None:
    """Revoked before expired before the day of the end; sampling is never out of sight."""
    past, future = datetime(2020, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC)
    changes: list[dict[str, object]] = [
        {"revoked_at": past, "expires_at": past},
        {"expires_at": past},
        {"expires_at": future, "sampling": 0.05},
        {"sampling": 1.0},
    ]
    for change in changes:
        key = auth.keys[made(capsys)]
        for name, value in change.items():
            setattr(key, name, value)
    assert main(["keys", "list", "--all"]) == 0
    states = [row.partition("2031-04-05  ")[2] for row in capsys.readouterr().out.splitlines()[1:]]
    assert states[::-1] == ["revoked", "expired", "until 2090-01-01, sampled 5 %", "active, sampled 100 %"]


def test_show_is_every_field_but_the_digests(auth: AdminAuth, capsys: Said) -> None:
    """As lines or as JSON; a rotation that overlaps and sampling are said in words."""
    key_id = made(capsys, "--set-label", "env=prod", "--network", "10.0.0.0/8")
    key = auth.keys[key_id]
    key.previous_until, key.sampling = datetime(2090, 1, 1, tzinfo=UTC), 0.05
    assert main(["keys", "show", key_id]) == 0
    shown = fields(capsys.readouterr().out)
    assert shown["rotation"] == "its former secret is good until 2090-01-01 00:00:00Z"
    assert shown["sampling"] == "5 % of its requests are stored, with prompt and answer"
    assert (shown["labels"], shown["networks"]) == ("env=prod", "10.0.0.0/8")
    assert main(["keys", "show", key_id, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["limits"]["requests_per_minute"] == 0
    assert document["previous_until"].startswith("2090-01-01T00:00:00")
    assert key.secret_sha256.hex() not in json.dumps(document)
    assert main(["keys", "show", "nobody"]) == 1
    assert capsys.readouterr().err == "key_id: no such key\n"


def test_what_others_wrote_does_not_steer_the_terminal(auth: AdminAuth, capsys: Said) -> None:
    """Control characters in names and labels come out as spaces, and long ones do not break the table."""
    auth.keys["k"] = Key(id="k", label="\x1b[2Jred\nnew line" + "x" * 200, owner="\x9b31m")
    for argv in (["keys", "list"], ["keys", "show", "k"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert not {"\x1b", "\x9b"} & set(out)
        assert "[2Jred new line" in out
    assert main(["keys", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_rotate_shows_the_new_token_once(auth: AdminAuth, capsys: Said) -> None:
    """A day's overlap unless told otherwise; the end of the former secret is named."""
    key_id = made(capsys)
    assert main(["keys", "rotate", key_id]) == 0
    said = capsys.readouterr()
    assert parse(said.out.strip())
    assert "the former one is good until 2031-04-06 06:07:08Z" in said.err
    assert main(["keys", "rotate", key_id, "--overlap", "0"]) == 0
    assert "the former one ended" in capsys.readouterr().err
    overlaps = [request.overlap for request in auth.requests if isinstance(request, RotateKeyRequest)]
    assert overlaps == [timedelta(days=1), timedelta()]


def test_the_home_s_own_admin_key_is_rotated_in_its_file(
    auth: AdminAuth, capsys: Said, tmp_path: Path
) -> None:
    """Else the next command would send the former secret. The file stays for its owner alone."""
    auth.keys[ADMIN.key_id] = Key(id=ADMIN.key_id)
    other = made(capsys)
    assert main(["keys", "rotate", other]) == 0
    assert (tmp_path / "admin-key").read_text() == f"{ADMIN.text}\n"
    capsys.readouterr()
    assert main(["keys", "rotate", ADMIN.key_id]) == 0
    said = capsys.readouterr()
    assert (tmp_path / "admin-key").read_text() == said.out
    assert (tmp_path / "admin-key").stat().st_mode & 0o777 == 0o600
    assert "has the new one" in said.err


@pytest.mark.parametrize("overlap", ["1w", "soon", "-1h", "1.5h", "", "1000000000d"])
def test_an_overlap_is_a_span(auth: AdminAuth, capsys: Said, overlap: str) -> None:
    """Exit status 2, and how to write one."""
    assert main(["keys", "rotate", "k", f"--overlap={overlap}"]) == 2
    assert "--overlap: " in capsys.readouterr().err
    assert not auth.requests


def test_revoke_without_a_terminal_wants_a_yes(auth: AdminAuth, capsys: Said) -> None:
    """Nothing is ended by a script that did not say so."""
    key_id = made(capsys, "--label", "old")
    assert main(["keys", "revoke", key_id]) == 2
    assert f"End key {key_id} of acme/search (old)" in (said := capsys.readouterr().err)
    assert "--yes" in said
    assert auth.keys[key_id].revoked_at is None
    assert main(["keys", "revoke", key_id, "--yes"]) == 0
    assert auth.keys[key_id].revoked_at == MOMENT
    assert capsys.readouterr().out == f"Key {key_id} is revoked since 2031-04-05 06:07:08Z.\n"


class Terminal(io.StringIO):
    """A stream that a human sits at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "revoked"), [("y\n", True), ("YES\n", True), ("\n", False), ("", False)])
def test_revoke_asks_at_a_terminal(
    auth: AdminAuth, capsys: Said, monkeypatch: pytest.MonkeyPatch, answer: str, *, revoked: bool
) -> None:
    """Only a yes is a yes; the home's own admin key is named as such."""
    auth.keys[ADMIN.key_id] = Key(id=ADMIN.key_id)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("sys.stderr", asked := Terminal())
    assert main(["keys", "revoke", ADMIN.key_id]) == (0 if revoked else 1)
    assert "It is the admin key of this home. [y/N]" in asked.getvalue()
    assert (auth.keys[ADMIN.key_id].revoked_at is not None) is revoked
    capsys.readouterr()


@pytest.mark.parametrize(("share", "kept"), [("0.05", 0.05), ("5%", 0.05), ("1", 1.0)])
def test_sampling_warns(auth: AdminAuth, capsys: Said, share: str, kept: float) -> None:
    """Whoever switches it on reads that prompts are stored, and how to stop it."""
    key_id = made(capsys)
    assert main(["keys", "sample", key_id, share]) == 0
    assert auth.keys[key_id].sampling == pytest.approx(kept)
    said = capsys.readouterr().err
    assert "STORED" in said
    assert f"weir keys sample {key_id} off" in said
    assert main(["keys", "sample", key_id, "off"]) == 0
    assert auth.keys[key_id].sampling == 0
    assert "kept" in capsys.readouterr().out


@pytest.mark.parametrize("share", ["2", "101%", "nan", "half", "on", ""])
def test_a_share_is_a_share(auth: AdminAuth, capsys: Said, share: str) -> None:
    """Exit status 2; nothing is switched on by a slip."""
    assert main(["keys", "sample", "k", share]) == 2
    assert "SHARE: " in capsys.readouterr().err
    assert not auth.requests
