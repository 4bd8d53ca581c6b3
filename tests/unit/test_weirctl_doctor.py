"""What `weir doctor` makes of each fact."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.settings import EdgeSettings
from gen.weir.auth.v1 import Key
from gen.weir.type.v1 import Principal
from weirctl import (
    doctor_clocks,
    doctor_files,
    doctor_parts,
    doctor_ports,
    doctor_sampling,
    doctor_settings,
    doctor_versions,
)
from weirctl.doctor_clocks import Clocks
from weirctl.doctor_files import CertificateFacts, SecretFile
from weirctl.doctor_finding import Finding, Level
from weirctl.doctor_ports import HeldPort
from weirctl.doctor_versions import Pin, Program
from weirctl.state_file import PartState
from weirctl.taken_ports import WantedPort

OK, WARNING, FAULT = Level.OK, Level.WARNING, Level.FAULT
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def levels(findings: Sequence[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


def test_a_finding_is_a_line() -> None:
    """Level, what was looked at, what was found, and how to mend it where it must be."""
    assert Finding(OK, "ports", "all 3 are free").line == "ok       ports: all 3 are free"
    assert Finding(FAULT, "ports", "taken", "stop it").line == "fault    ports: taken. Mend: stop it"


def test_settings() -> None:
    """Every fault of the file on a line of its own."""
    assert [finding.line for finding in doctor_settings.settings("weir.yaml", "")] == [
        "ok       settings: weir.yaml can be used"
    ]
    faults = doctor_settings.settings("weir.yaml", "weir.yaml:1:2: bad\nweir.yaml:3:4: worse")
    assert [(finding.level, finding.text) for finding in faults] == [
        (FAULT, "weir.yaml:1:2: bad"),
        (FAULT, "weir.yaml:3:4: worse"),
    ]


def test_transports() -> None:
    """Only loopback tells nobody who calls."""
    assert doctor_settings.transport("loopback").level is WARNING
    assert "mtls" in doctor_settings.transport("loopback").mend
    assert levels([doctor_settings.transport(name) for name in ("mtls", "uds", "mesh")]) == [OK, OK, OK]


@pytest.mark.parametrize(
    ("host", "level"),
    [
        ("127.0.0.1", OK), ("127.8.8.8", OK), ("::1", OK), ("localhost", OK),
        ("0.0.0.0", WARNING),  # noqa: S104 - looked at, not listened on
        ("::", WARNING), ("192.168.0.7", WARNING), ("gateway.example.com", WARNING),
    ],
)  # fmt: skip
def test_an_edge_that_others_reach(host: str, level: Level) -> None:
    """Beyond loopback keys cross the network in clear text."""
    assert doctor_settings.edge_reach(EdgeSettings(host=host)).level is level


@pytest.mark.parametrize(
    ("log_level", "level"), [("trace", WARNING), ("debug", WARNING), ("info", OK), ("warning", OK)]
)
def test_an_edge_whose_log_shows_keys(log_level: str, level: Level) -> None:
    """It shows headers from debug on."""
    assert doctor_settings.edge_log(EdgeSettings.model_validate({"log_level": log_level})).level is level


def test_ports_while_the_mesh_is_down() -> None:
    """Each fault as the start would say it."""
    assert levels(doctor_ports.down([], 12)) == [OK]
    assert [finding.text for finding in doctor_ports.down(["port 1 is taken", "port 2 is taken"], 12)] == [
        "port 1 is taken",
        "port 2 is taken",
    ]


def test_ports_while_it_is_up() -> None:
    """Ours are fine; another's is a fault; one that nobody holds or nobody sees is a warning."""
    want = WantedPort("127.0.0.1", 8080, "the edge", "ports.edge")
    ours, theirs = HeldPort(want, 7, "envoy (process 7)"), HeldPort(want, 8, "nginx (process 8)")
    nobody, unseen = HeldPort(want, None, ""), HeldPort(want, None, "a process that cannot be seen")
    own = frozenset({1, 7})
    assert levels(doctor_ports.up([ours, ours], own)) == [OK]
    found = doctor_ports.up([ours, theirs, nobody, unseen], own)
    assert levels(found) == [FAULT, WARNING, WARNING]
    assert "nginx (process 8)" in found[0].text
    assert "ports.edge" in found[0].mend


def test_parts() -> None:
    """One that is down or comes and goes is named, with the log to read."""
    well = PartState("auth", "healthy", 7, 0, 0.0, "127.0.0.1:1")
    assert levels(doctor_parts.parts([well, replace_state(well, restarts=2)])) == [OK]
    crashed, shaky = replace_state(well, state="crashed"), replace_state(well, restarts=3)
    found = doctor_parts.parts([well, crashed, shaky])
    assert levels(found) == [FAULT, WARNING]
    assert all("log/auth.log" in finding.mend for finding in found)


def replace_state(part: PartState, *, state: str = "healthy", restarts: int = 0) -> PartState:
    return PartState(part.name, state, part.pid, restarts, part.since_s, part.address)


@pytest.mark.parametrize(
    ("version", "level"), [((3, 10), FAULT), ((3, 11), OK), ((3, 12), OK), ((3, 13), FAULT)]
)
def test_pythons(version: tuple[int, int], level: Level) -> None:
    """Those of pyproject.toml."""
    assert doctor_versions.python(version, "x").level is level


def test_pins_are_read_from_the_lock_file() -> None:
    """Hashes and comments are not names; one package may have a version for each platform."""
    text = (
        "# made by\naiohttp==3.14.5 \\\n    --hash=sha256:00 \\\n"
        "numpy==2.4.6 ; python_full_version < '3.12' \\\nnumpy==2.5.5 ; python_full_version >= '3.12' \\\n"
    )
    assert doctor_versions.pins(text) == {
        "aiohttp": Pin({"3.14.5"}, conditional=False),
        "numpy": Pin({"2.4.6", "2.5.5"}, conditional=True),
    }


def test_packages() -> None:
    """One that is missing breaks something; another version was not tested; some platforms do without some."""
    wanted = {"a": Pin({"1"}, conditional=False), "b": Pin({"2", "3"}, conditional=True)}
    assert doctor_versions.packages(wanted, {"a": "1", "b": "3"}).level is OK
    assert doctor_versions.packages(wanted, {"a": "1"}).level is OK
    other = doctor_versions.packages(wanted, {"a": "1", "b": "4"})
    assert (other.level, other.text) == (WARNING, "not as locked: b 4 (wanted 2 or 3)")
    missing = doctor_versions.packages(wanted, {"b": "4"})
    assert (missing.level, missing.text) == (FAULT, "missing: a")
    assert doctor_versions.packages({}, {}).level is OK
    many = {name: Pin({"1"}, conditional=False) for name in "abcdefgh"}
    assert doctor_versions.packages(many, {}).text == "missing: a, b, c, d, e and 3 more"


def test_installed_versions_are_this_python_s() -> None:
    """What is not installed has none."""
    found = doctor_versions.installed(["pytest", "no-such-package-anywhere"])
    assert found == {"pytest": pytest.__version__}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((sys.executable, "--version"), Program("x", f"Python {sys.version.split()[0]}")),
        ((sys.executable, "-c", "print(); print('x version: 7')"), Program("x", "7")),
        ((sys.executable, "-c", "raise SystemExit('broken')"), Program("x", "", "broken")),
        ((sys.executable, "-c", "raise SystemExit(3)"), Program("x", "", "exit status 3")),
    ],
)
def test_programs_are_asked_for_their_version(argv: tuple[str, ...], expected: Program) -> None:
    """The first line that it says, or why it cannot."""
    assert doctor_versions.ask_version("x", argv, {}) == expected
    assert doctor_versions.program(expected).level is (FAULT if expected.fault else OK)


def test_a_program_that_is_not_there() -> None:
    """A fault, no trace."""
    assert doctor_versions.ask_version("x", ("/nowhere/envoy", "--version"), {}).fault


def test_triton() -> None:
    """Not set up is no fault: the first start does it."""
    assert doctor_versions.triton(needed=False, prepared=False).level is OK
    assert doctor_versions.triton(needed=True, prepared=True).level is OK
    assert doctor_versions.triton(needed=True, prepared=False).level is WARNING


def test_files_that_others_may_read(tmp_path: Path) -> None:
    """Any right of group or others is too much; a link counts as what it leads to."""
    files = [
        SecretFile(tmp_path / name, mode)
        for name, mode in [("a", 0o600), ("b", 0o640), ("c", 0o604), ("d", None), ("e", 0o400), ("f", 0o602)]
    ]
    found = doctor_files.secret_files("key files", files)
    assert levels(found) == [FAULT] * 3
    assert f"chmod 600 {tmp_path / 'b'}" in found[0].mend
    assert levels(doctor_files.secret_files("key files", [files[0], files[3]])) == [OK]
    assert "made at the start" in doctor_files.secret_files("key files", [files[3]])[0].text
    (tmp_path / "real").touch(mode=0o600)
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    assert doctor_files.secret_file(tmp_path / "link").mode == 0o640
    assert doctor_files.secret_file(tmp_path / "none").mode is None


def certificate(*, left: timedelta = 20 * DAY, present: bool = True, fault: str = "") -> CertificateFacts:
    """One of a life of 30 days."""
    ends = NOW + left
    begins, end = (None, None) if fault else (ends - 30 * DAY, ends)
    return CertificateFacts("auth", Path("/home/tls/auth"), present, fault, begins, end)


def look(*facts: CertificateFacts, made_by_us: bool = True, up: bool = True) -> list[Finding]:
    return doctor_files.certificates(facts, NOW, made_by_us=made_by_us, up=up)


def test_certificates_that_were_never_made() -> None:
    """The start makes ours; nobody makes others'."""
    missing = certificate(present=False, fault="tls.crt: No such file")
    assert levels(look(missing, up=False)) == [OK]
    assert levels(look(missing)) == [OK]
    assert levels(look(missing, made_by_us=False, up=False)) == [FAULT]
    assert levels(look(certificate(), missing)) == [FAULT]


def test_certificates_that_end() -> None:
    """Well until two thirds of their life are over; then overdue, since they should have been renewed."""
    second = timedelta(seconds=1)
    assert levels(look(certificate(left=10 * DAY + second))) == [OK]
    assert levels(look(certificate(left=10 * DAY))) == [WARNING]
    expired = certificate(fault="tls.crt: expired at 2026-01-01")
    found = look(certificate(), certificate(left=DAY), expired)
    assert levels(found) == [WARNING, FAULT]
    assert "expired" in found[1].text


def test_certificates_while_the_mesh_is_down() -> None:
    """Ours mend themselves at the next start; others' do not."""
    bad = certificate(left=DAY), certificate(fault="tls.crt: expired")
    (ours,) = look(*bad, up=False)
    assert (ours.level, "2 are missing or end soon" in ours.text) == (OK, True)
    assert levels(look(*bad, made_by_us=False, up=False)) == [WARNING, FAULT]


CLOCKS = Clocks(1_800_000_000.0, 100.0, 1_800_000_002.0, 102.0)


def test_clocks_that_agree() -> None:
    """With PostgreSQL's, or alone where it is down."""
    assert levels(doctor_clocks.clocks(CLOCKS)) == [OK]
    assert "not compared" in doctor_clocks.clocks(CLOCKS)[0].text
    both = replace(CLOCKS, database_ahead=timedelta(seconds=-0.9), stepped=timedelta(seconds=-50))
    assert levels(doctor_clocks.clocks(both)) == [OK]


@pytest.mark.parametrize(
    ("ahead_s", "level"), [(1.5, WARNING), (-1.5, WARNING), (30.5, FAULT), (-3_600, FAULT)]
)
def test_clocks_that_differ(ahead_s: float, level: Level) -> None:
    """Beyond what a token's times may be off it is a fault; the direction is shown."""
    (found,) = doctor_clocks.clocks(replace(CLOCKS, database_ahead=timedelta(seconds=ahead_s)))
    assert (found.level, f"{ahead_s:+.1f} s" in found.text) == (level, True)


def test_clocks_that_are_moved() -> None:
    """While the doctor looks, or since the mesh began; and one that was never set."""
    assert levels(doctor_clocks.clocks(replace(CLOCKS, wall_s=CLOCKS.wall_s - 1))) == [WARNING]
    (stepped,) = doctor_clocks.clocks(replace(CLOCKS, stepped=timedelta(hours=-1)))
    assert (stepped.level, "-3600 s" in stepped.text) == (WARNING, True)
    never_set = Clocks(10.0, 100.0, 12.0, 102.0)
    (found,) = doctor_clocks.clocks(never_set)
    assert (found.level, "1970-01-01" in found.text) == (FAULT, True)


def test_a_database_that_does_not_answer() -> None:
    """A fault, and nothing said of its clock."""
    (found,) = doctor_clocks.clocks(replace(CLOCKS, database_fault="connection refused"))
    assert (found.level, found.text) == (FAULT, "PostgreSQL cannot be asked: connection refused")


def test_a_step_of_the_clock_is_seen_by_the_file_s_time(tmp_path: Path) -> None:
    """The process's age is the kernel's; the file's time is the wall clock's of then."""
    marked = tmp_path / "lock"
    marked.touch()
    even = doctor_clocks.stepped_since(os.getpid(), marked)
    assert even is not None
    then = time.time() - 3_600
    os.utime(marked, (then, then))
    moved = doctor_clocks.stepped_since(os.getpid(), marked)
    assert moved is not None
    assert moved - even == pytest.approx(timedelta(hours=1), abs=timedelta(seconds=5))
    assert doctor_clocks.stepped_since(os.getpid(), tmp_path / "none") is None
    assert doctor_clocks.stepped_since(2**22 + 1, marked) is None


def test_keys_that_are_sampled() -> None:
    """Each is named with how to stop it; a crowd is cut short."""
    quiet = Key(id="quiet", principal=Principal(org="acme", team="blue"))
    sampled = [Key(id=f"k{n}", principal=Principal(org="acme", team="red"), sampling=0.05) for n in range(25)]
    assert levels(doctor_sampling.sampling([quiet])) == [OK]
    (found,) = doctor_sampling.sampling([quiet, sampled[0]])
    assert found.level is WARNING
    assert "5 % of the requests of key k0 (acme/red) are stored" in found.text
    assert "weir keys sample k0 off" in found.mend
    many = doctor_sampling.sampling(sampled)
    assert len(many) == 21
    assert "5 more keys" in many[-1].text
    assert levels(doctor_sampling.unknown("no admin key")) == [WARNING]
