"""The audit of dependencies: each fault is named, and what is locked here has none that a lock could have."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tools.dependency_audit import doubled, known_faults, licence_faults, no_releases, strangers, unpinned
from tools.licences import Policy, licence_of, policy
from tools.locks import Locked, LockError, locks, read

DIGEST = "ab" * 32
ADVISORY = {"id": "CVE-1", "package": "a", "versions": "<2", "what": "a fault"}


def lock(*lines: str) -> list[Locked | LockError]:
    """A lock of these requirements, each with a hash."""
    return list(read("# a lock\n" + "".join(f"{line} \\\n    --hash=sha256:{DIGEST}\n" for line in lines)))


def locked(*lines: str) -> list[Locked]:
    """The same, without its errors."""
    return [each for each in lock(*lines) if isinstance(each, Locked)]


def rules(
    exceptions: Mapping[str, Mapping[str, str]] | None = None,
    licences: Mapping[str, Mapping[str, str]] | None = None,
    advisories: tuple[Mapping[str, str], ...] = (),
) -> Policy:
    """A policy that allows MIT and ISC."""
    return Policy(frozenset({"MIT", "ISC"}), exceptions or {}, licences or {}, advisories)


def said(licence: str, why: str = "said so") -> dict[str, str]:
    """An entry of a policy."""
    return {"licence": licence, "why": why}


def test_a_lock_is_read() -> None:
    """Names in one form, versions, markers, and every hash."""
    text = f"A_b[c]==1.0 ; python_version < '3.12' \\\n    --hash=sha256:{DIGEST} \\\n    --hash=sha256:{'cd' * 32}\n"
    (found,) = read(text)
    assert isinstance(found, Locked)
    assert (found.name, found.version, found.sha256) == ("a-b", "1.0", (DIGEST, "cd" * 32))
    assert str(found.marker) == 'python_version < "3.12"'


@pytest.mark.parametrize("line", ["a", "a>=1", "a==1.*", "a @ https://example.com/a.whl", "-e .", "--pre"])
def test_what_names_no_version(line: str) -> None:
    """Is a fault, not passed over."""
    assert list(unpinned(lock(line))) == [f"{line}: names no version"]


@pytest.mark.parametrize("text", ["a==1\n", f"a==1 --hash=md5:{DIGEST}\n", "a==1 --hash=sha256:abc\n"])
def test_what_has_no_hash(text: str) -> None:
    """Nor one that is too short or of another kind."""
    assert list(unpinned(list(read(text)))) == ["a: has no hash"]


@pytest.mark.parametrize("version", ["1.0rc1", "1.0.dev3", "2a1", "1.0+local"])
def test_what_is_no_release(version: str) -> None:
    """Drafts and builds of somebody's own."""
    assert list(no_releases(locked(f"a=={version}", "b==1.0.post1"))) == [f"a {version}: is no release"]


def test_two_versions_for_one_machine() -> None:
    """Unless their markers keep them apart."""
    apart = locked("a==1 ; python_full_version < '3.12'", "a==2 ; python_full_version >= '3.12'")
    assert list(doubled(apart)) == []
    (fault,) = doubled(locked("a==1 ; python_full_version < '3.12' and sys_platform == 'linux'", "a==2"))
    assert fault == "a: both 1 and 2 on Python 3.11, linux"


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MIT AND ISC", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT AND LGPL-3.0-only", False),
    ],
)
def test_licences(licence: str, *, allowed: bool) -> None:
    """Of several choices one will do; of several that hold together all must be allowed."""
    found = list(licence_faults(locked("a==1"), rules(licences={"a": said(licence)})))
    assert found == ([] if allowed else [f"a: {licence} is not an allowed licence"])


def test_an_exception_is_of_one_package_and_one_licence() -> None:
    """When the package changes its licence, somebody must look again."""
    exceptions = {"a": said("LGPL-3.0-only")}
    good = rules(exceptions, {"a": said("LGPL-3.0-only")})
    assert list(licence_faults(locked("a==1"), good)) == []
    changed = rules(exceptions, {"a": said("GPL-3.0-only")})
    assert list(licence_faults(locked("a==1"), changed)) == ["a: GPL-3.0-only is not an allowed licence"]


def test_a_licence_that_nobody_knows() -> None:
    """Neither the package, which is not here, nor the policy says it."""
    (fault,) = licence_faults(locked("no-such-package==1"), rules())
    assert fault == "no-such-package: its licence is not known; say it in dependency_policy.toml"


def test_rules_about_nothing_and_without_a_reason() -> None:
    """They would be there still when nobody knows why."""
    found = list(licence_faults(locked("a==1"), rules({"b": said("X")}, {"a": said("MIT", "")})))
    assert found == ["b: in [exceptions], and not locked", "a: in [licences] without a reason"]


@pytest.mark.parametrize(
    ("version", "advisory", "faults"),
    [
        ("1.9", ADVISORY, ["a 1.9: CVE-1, a fault"]),
        ("1.9", {**ADVISORY, "accepted": "never called"}, []),
        ("1.9", {**ADVISORY, "accepted": ""}, ["a 1.9: CVE-1, a fault"]),
        ("2.0", ADVISORY, []),
        (
            "2.0",
            {**ADVISORY, "accepted": "never called"},
            ["CVE-1: no longer concerns a; nothing is to be accepted"],
        ),
        ("1.9", {**ADVISORY, "package": "b"}, ["CVE-1: b is not locked"]),
    ],
)
def test_advisories(version: str, advisory: dict[str, str], faults: list[str]) -> None:
    """A locked version that has a known fault, unless it is said why it may stay."""
    assert list(known_faults(locked(f"a=={version}"), rules(advisories=(advisory,)))) == faults


def test_what_the_venv_has_beside_the_locks() -> None:
    """Nothing but pip; and of what is locked the version that is."""
    installed = {"a": "1", "b": "1", "c": "3", "pip": "24"}
    found = list(strangers(installed, locked("a==1", "c==1", "c==2")))
    assert found == ["b 1: installed, and in no lock", "c 3: installed, and locked is 1, 2"]


def test_the_locks_as_they_are() -> None:
    """Each pins everything, to releases, with an allowed licence, without a known fault."""
    everything: list[Locked] = []
    for path in locks():
        found = list(read(path.read_text(encoding="utf-8")))
        assert found, path
        assert list(unpinned(found)) == []
        everything += [each for each in found if isinstance(each, Locked)]
    assert list(no_releases(everything)) == []
    names = {each.name for each in everything}
    for name in names:
        licence = licence_of(name, policy())
        assert licence is not None, name
        assert policy().allows(name, licence), name


def test_advisories_name_what_they_are_about() -> None:
    """Each has an id, a package, versions and a sentence; no id twice for a package."""
    found = policy().advisories
    assert len({(each["id"], each["package"]) for each in found}) == len(found)
    for each in found:
        assert (
            {"id", "package", "versions", "what"}
            <= set(each)
            <= {"id", "package", "versions", "what", "accepted"}
        )
        assert each["id"].startswith("CVE-")
