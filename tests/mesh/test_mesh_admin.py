"""Keys, audit, usage and the doctor, as whoever administers a running mesh uses them."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.harness.running_weir import RunningWeir, free_configuration, wait_for, weir_command
from weirctl import admin_key

OK, UNAUTHORIZED = 200, 401
ENDS_WITHIN_S = 5.0
"""Patience for a busy machine; how fast it really is, is measured elsewhere."""


def a_team() -> str:
    """One that no other test has."""
    return f"team-{uuid4().hex[:8]}"


def create(weir: RunningWeir, team: str, *options: str) -> str:
    """A new key's token."""
    created = weir.run("keys", "create", "--org", "tests", "--team", team, *options)
    assert created.returncode == 0, created.stderr
    return created.stdout.strip()


def id_of(token: str) -> str:
    return token.split("_")[1]


def as_key(weir: RunningWeir, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that administers with this key."""
    return weir_command(weir.home, *arguments, environment={**weir.environment, admin_key.VARIABLE: token})


def status(weir: RunningWeir, token: str) -> int:
    """What the edge says to this key."""
    request = urllib.request.Request(f"{weir.base_url}/models", headers={"authorization": f"Bearer {token}"})  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def rows(shown: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What a command printed with --json."""
    assert shown.returncode == 0, shown.stderr
    found: list[dict[str, Any]] = json.loads(shown.stdout)
    return found


def test_a_key_from_its_making_to_its_end(weir: RunningWeir) -> None:
    """Made, listed, shown, rotated with and without overlap, revoked; the edge follows each step."""
    team = a_team()
    first = create(weir, team, "--label", "life", "--set-label", "stage=test", "--requests-per-minute", "600")
    key_id = id_of(first)
    assert status(weir, first) == OK
    assert [row["id"] for row in rows(weir.run("keys", "list", "--team", team, "--json"))] == [key_id]
    shown = weir.run("keys", "show", key_id)
    assert "labels:     stage=test" in shown.stdout
    assert "600 requests a minute" in shown.stdout

    second = weir.run("keys", "rotate", key_id, "--overlap", "1h").stdout.strip()
    assert id_of(second) == key_id
    wait_for("the new secret", lambda: status(weir, second) == OK, ENDS_WITHIN_S)
    assert status(weir, first) == OK
    third = weir.run("keys", "rotate", key_id, "--overlap", "0").stdout.strip()
    for former in (first, second):
        wait_for("the former secret's end", lambda: status(weir, former) == UNAUTHORIZED, ENDS_WITHIN_S)  # noqa: B023 - called in this turn
    assert status(weir, third) == OK

    assert weir.run("keys", "revoke", key_id).returncode == 2
    assert weir.run("keys", "revoke", key_id, "--yes").returncode == 0
    wait_for("the key's end", lambda: status(weir, third) == UNAUTHORIZED, ENDS_WITHIN_S)
    assert rows(weir.run("keys", "list", "--team", team, "--json")) == []
    (ended,) = rows(weir.run("keys", "list", "--team", team, "--all", "--json"))
    assert (ended["id"], ended["state"]) == (key_id, "revoked")


def test_who_may_administer(weir: RunningWeir) -> None:
    """A key without the scope is told which one it lacks; keys:write keeps to its own team; a bad key is nobody."""
    team, other = a_team(), a_team()
    plain, writer = create(weir, team), create(weir, team, "--scope", "keys:write", "--scope", "chat")
    stranger = id_of(create(weir, other))
    refused = as_key(weir, plain, "keys", "list")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "lacks the scope keys:write or admin (sent: the key of WEIR_ADMIN_KEY)" in refused.stderr
    assert {row["team"] for row in rows(as_key(weir, writer, "keys", "list", "--json"))} == {team}
    for command in (("show", stranger), ("rotate", stranger), ("revoke", stranger, "--yes")):
        assert as_key(weir, writer, "keys", *command).returncode == 1
    assert as_key(weir, writer, "audit").returncode == 1
    broken = as_key(weir, f"{plain[:-1]}!", "keys", "list")
    assert broken.returncode == 1
    assert "sent: the admin key of WEIR_ADMIN_KEY" in broken.stderr
    assert plain not in broken.stderr


def test_the_audit_tells_who_did_what(weir: RunningWeir) -> None:
    """Done and refused, with key, address and reason; never a secret."""
    token = create(weir, a_team())
    assert as_key(weir, token, "keys", "list").returncode == 1
    done = rows(weir.run("audit", "--since", "1h", "--json", "--limit", "1000"))
    made = [row for row in done if row["subject"] == id_of(token)]
    assert [(row["action"], row["outcome"], row["org"]) for row in made] == [("keys.create", "done", "weir")]
    (refused,) = rows(weir.run("audit", "--key", id_of(token), "--refused", "--json"))
    assert (refused["action"], refused["outcome"], refused["org"]) == ("keys.list", "forbidden", "tests")
    table = weir.run("audit", "--limit", "1000").stdout
    assert id_of(token) in table
    assert token.rpartition("_")[2] not in table


def test_usage_is_shown_to_its_team_alone(weir: RunningWeir) -> None:
    """usage:read sees its own team, admin sees all, a key without the scope sees nothing."""
    team = a_team()
    asks, reads = create(weir, team), create(weir, team, "--scope", "usage:read")
    elsewhere = create(weir, a_team(), "--scope", "usage:read")
    body = json.dumps({"model": "cloud", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    headers = {"authorization": f"Bearer {asks}", "content-type": "application/json"}
    request = urllib.request.Request(f"{weir.base_url}/chat/completions", body, headers)  # noqa: S310 - loopback
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - loopback

    def of_team(shown: subprocess.CompletedProcess[str]) -> list[str]:
        assert shown.returncode == 0, shown.stderr
        return [line.split()[0] for line in shown.stdout.splitlines() if line.startswith("tests/")]

    own = wait_for("the attempt's row", lambda: of_team(as_key(weir, reads, "usage")) or None)
    assert own == [f"tests/{team}"]
    assert f"tests/{team}" in of_team(weir.run("usage"))
    assert of_team(as_key(weir, elsewhere, "usage")) == []
    refused = as_key(weir, asks, "usage")
    assert refused.returncode == 1
    assert "lacks the scope usage:read or admin" in refused.stderr


def test_the_doctor_of_a_running_mesh(weir: RunningWeir) -> None:
    """No fault; ports and parts are its own; a key that is sampled is named until it is not."""
    key_id = id_of(create(weir, a_team()))
    sampled = weir.run("keys", "sample", key_id, "10%")
    assert "STORED" in sampled.stderr
    look = ("doctor", "--config", str(weir.home / "test.yaml"))
    seen = weir.run(*look)
    assert seen.returncode == 0, seen.stdout
    assert f"10 % of the requests of key {key_id} (tests/" in seen.stdout
    lines = {line.split()[1]: line for line in seen.stdout.splitlines()}
    assert "held by this Weir" in lines["ports:"]
    assert "are healthy" in lines["parts:"]
    assert "agrees with PostgreSQL's" in lines["clocks:"]
    assert weir.run("keys", "sample", key_id, "off").returncode == 0
    found = json.loads(weir.run(*look, "--json").stdout)
    assert [one["level"] for one in found if one["what"] == "sampling" and key_id in one["text"]] == []


def test_the_doctor_where_nothing_runs(tmp_path: Path) -> None:
    """It looks at what there is, says so, and fails for a fault alone."""
    (tmp_path / "weir.yaml").write_text(json.dumps(free_configuration(transport="uds")), encoding="utf-8")
    look = ("doctor", "--config", str(tmp_path / "weir.yaml"))
    well = weir_command(tmp_path, *look)
    assert well.returncode == 0, well.stdout
    assert "PostgreSQL is down, so not compared" in well.stdout
    (tmp_path / "admin-key").touch(mode=0o600)
    (tmp_path / "admin-key").chmod(0o644)
    ill = weir_command(tmp_path, *look)
    assert ill.returncode == 1
    assert "fault    key files: " in ill.stdout
    assert not (tmp_path / "run").exists()
