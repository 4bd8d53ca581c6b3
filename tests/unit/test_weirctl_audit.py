"""`weir audit` and `weir samples` against an Auth in memory."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from gen.weir.auth.v1 import AuditEvent, ListAuditRequest, ListSamplesRequest, Sample
from gen.weir.error.v1 import Reason
from gen.weir.type.v1 import Principal
from meshkit.settings import HOME_VARIABLE
from tests.fakes.admin_auth import ADMIN, AdminAuth
from tests.fakes.auth import MOMENT
from weirctl import admin_calls, admin_key
from weirctl.__main__ import main

Said = pytest.CaptureFixture[str]

CREATED = AuditEvent(
    id=7,
    at=MOMENT,
    who=Principal(key_id="abc", org="weir", team="admin"),
    action="keys.create",
    subject="def",
    address="ipv4:127.0.0.1:4711",
    peer="operator",
    detail="for acme/search",
    count=1,
)
REFUSED = AuditEvent(
    id=6,
    at=MOMENT - timedelta(minutes=1),
    action="/weir.openai.v1.OpenAI/ChatCompletions",
    address="10.1.2.3",
    refused=Reason.KEY_REVOKED,
    count=40,
)


@pytest.fixture
def auth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AdminAuth:
    """Whom the commands ask; the environment has the admin key."""
    auth = AdminAuth()
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    monkeypatch.setenv(admin_key.VARIABLE, ADMIN.text)
    monkeypatch.setattr(admin_calls, "transport_to", auth.transport_to())
    return auth


def test_the_audit_is_a_table(auth: AdminAuth, capsys: Said) -> None:
    """Who, what, on what, from where, and what came of it; a refusal without a known key too."""
    auth.events = [CREATED, REFUSED]
    assert main(["audit"]) == 0
    heading, created, refused = capsys.readouterr().out.splitlines()
    assert heading.split() == ["WHEN", "WHO", "ACTION", "SUBJECT", "FROM", "OUTCOME", "COUNT", "DETAIL"]
    assert created.split() == [
        "2031-04-05", "06:07:08Z", "abc", "weir/admin", "keys.create", "def", "operator", "ipv4:127.0.0.1:4711",
        "done", "1", "for", "acme/search",
    ]  # fmt: skip
    assert refused.split() == [
        "2031-04-05", "06:06:08Z", "-", "/weir.openai.v1.OpenAI/ChatCompletions", "-", "10.1.2.3",
        "key_revoked", "40", "-",
    ]  # fmt: skip


def test_the_audit_as_json(auth: AdminAuth, capsys: Said) -> None:
    """Every field of the row."""
    auth.events = [CREATED, REFUSED]
    assert main(["audit", "--json"]) == 0
    created, refused = json.loads(capsys.readouterr().out)
    assert created == {
        "id": 7, "at": "2031-04-05T06:07:08.901+00:00", "key_id": "abc", "org": "weir", "team": "admin",
        "action": "keys.create", "subject": "def", "address": "ipv4:127.0.0.1:4711", "peer": "operator",
        "outcome": "done", "count": 1, "detail": "for acme/search",
    }  # fmt: skip
    assert (refused["outcome"], refused["count"], refused["key_id"]) == ("key_revoked", 40, "")


def test_an_empty_audit(auth: AdminAuth, capsys: Said) -> None:
    """Words for a human, an empty list for a program."""
    assert main(["audit"]) == 0
    assert capsys.readouterr().out == "Nothing yet.\n"
    assert main(["audit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert auth.requests


def test_what_is_asked_for(auth: AdminAuth, capsys: Said) -> None:
    """Filters go to Auth; what is no span or date is wrong use."""
    assert main(["audit", "--since", "2031-01-02", "--key", "abc", "--refused", "--limit", "5"]) == 0
    (request,) = auth.requests
    assert isinstance(request, ListAuditRequest)
    assert request.since is not None
    assert request.since.isoformat() == "2031-01-02T00:00:00+00:00"
    assert (request.key_id, request.refused, request.page_size) == ("abc", True, 5)
    assert main(["audit", "--since", "yesterday"]) == 2
    assert "--since 'yesterday': write 30m, 24h, 7d" in capsys.readouterr().err


def test_pages_up_to_the_limit(auth: AdminAuth, capsys: Said) -> None:
    """A hundred rows unless told otherwise, however Auth cuts its pages; it says that there are more."""
    auth.events = [AuditEvent(id=number, action="keys.list", count=1) for number in range(250)]
    auth.largest_page = 60
    assert main(["audit", "--json"]) == 0
    said = capsys.readouterr()
    assert [row["id"] for row in json.loads(said.out)] == list(range(100))
    assert "There are more" in said.err
    assert main(["audit", "--json", "--limit", "1000"]) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 250
    assert said.err == ""


def test_a_row_of_a_newer_release(auth: AdminAuth, capsys: Said) -> None:
    """A reason that this one does not know is shown by its number; nothing in it steers the terminal."""
    auth.events = [AuditEvent(action="keys.\x1b[2J", refused=Reason(77), detail="a\nb")]
    assert main(["audit"]) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert "77" in row.split()
    assert "\x1b" not in row


def test_samples(auth: AdminAuth, capsys: Said) -> None:
    """Prompt and answer below who asked whom; a broken one is marked; control characters are made visible."""
    whole = Sample(
        at=MOMENT,
        request_id="req_1",
        key_id="abc",
        model="auto",
        target="local",
        prompt='{"a": 1}',
        answer="Hi\n\x1b[2Jyou",
    )
    broken = Sample(at=MOMENT, request_id="req_2", key_id="def", model="auto", partial=True)
    auth.samples = [whole, broken]
    assert main(["samples", "abc"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2031-04-05 06:07:08Z  key abc  model auto  target local  request req_1",
        "  prompt:",
        '    {"a": 1}',
        "  answer:",
        "    Hi",
        "    \\x1b[2Jyou",
    ]
    assert main(["samples", "--json", "--limit", "50"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["answer"], first["partial"], second["partial"]) == ("Hi\n\x1b[2Jyou", False, True)
    assert auth.requests == [
        ListSamplesRequest(key_id="abc", page_size=20),
        ListSamplesRequest(page_size=50),
    ]
    assert main(["samples", "def"]) == 0
    assert "(not whole)" in capsys.readouterr().out
    assert main(["samples", "nobody"]) == 0
    assert capsys.readouterr().out == "No samples are kept.\n"
