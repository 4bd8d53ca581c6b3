"""`make audit`: what can be said of the dependencies without asking anybody. Exits 1 and names every fault.

Every requirement is pinned with hashes, is a release, is there once for each platform, has an allowed licence and no
known fault; the venv holds nothing else. What became known since the policy was last edited it cannot know.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from itertools import product

from packaging.markers import default_environment
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools.licences import Policy, licence_of, policy
from tools.locks import TRITON, Locked, LockError, locks, read

_OF_EVERY_VENV = frozenset({"pip", "setuptools"})
# Where Weir runs.
_PYTHONS = ("3.11", "3.12")
_PLATFORMS = ("linux", "darwin")

Lock = Sequence[Locked | LockError]


def unpinned(lock: Lock) -> Iterator[str]:
    """What names no version or no hash."""
    for each in lock:
        if isinstance(each, LockError):
            yield str(each)
        elif not each.sha256:
            yield f"{each.name}: has no hash"


def no_releases(found: Sequence[Locked]) -> Iterator[str]:
    """Versions that nobody means to keep: drafts, and builds of somebody's own."""
    for each in found:
        version = Version(each.version)
        if version.is_prerelease or version.local is not None:
            yield f"{each.name} {each.version}: is no release"


def doubled(found: Sequence[Locked]) -> Iterator[str]:
    """Packages of which one machine would get two versions."""
    for python, platform in product(_PYTHONS, _PLATFORMS):
        chosen: dict[str, str] = {}
        for each in found:
            applies = each.marker is None or each.marker.evaluate(_environment(python, platform))
            if applies and chosen.setdefault(each.name, each.version) != each.version:
                yield f"{each.name}: both {chosen[each.name]} and {each.version} on Python {python}, {platform}"


def _environment(python: str, platform: str) -> dict[str, str]:
    known = {name: str(value) for name, value in default_environment().items()}
    return {**known, "python_version": python, "python_full_version": f"{python}.0", "sys_platform": platform}


def licence_faults(found: Sequence[Locked], rules: Policy) -> Iterator[str]:
    """Licences that nobody allowed, and rules about what is not there."""
    names = {each.name for each in found}
    for name in sorted(names):
        licence = licence_of(name, rules)
        if licence is None:
            yield f"{name}: its licence is not known; say it in dependency_policy.toml"
        elif not rules.allows(name, licence):
            yield f"{name}: {licence} is not an allowed licence"
    for kind, rule in (("exceptions", rules.exceptions), ("licences", rules.licences)):
        yield from (f"{name}: in [{kind}], and not locked" for name in sorted(set(rule) - names))
        yield from (f"{name}: in [{kind}] without a reason" for name in sorted(rule) if not rule[name]["why"])


def known_faults(found: Sequence[Locked], rules: Policy) -> Iterator[str]:
    """Locked versions with an advisory that was not accepted; and advisories about nothing."""
    for advisory in rules.advisories:
        ours = [each for each in found if each.name == advisory["package"]]
        faulty = [
            each for each in ours if each.version in SpecifierSet(advisory["versions"], prereleases=True)
        ]
        if not ours:
            yield f"{advisory['id']}: {advisory['package']} is not locked"
        elif not faulty and "accepted" in advisory:
            yield f"{advisory['id']}: no longer concerns {advisory['package']}; nothing is to be accepted"
        elif not advisory.get("accepted"):
            yield from (
                f"{each.name} {each.version}: {advisory['id']}, {advisory['what']}" for each in faulty
            )


def strangers(installed: Mapping[str, str], found: Sequence[Locked]) -> Iterator[str]:
    """What the venv has beside the locks."""
    versions: dict[str, set[str]] = {}
    for each in found:
        versions.setdefault(each.name, set()).add(each.version)
    for name, version in sorted(installed.items()):
        if name in versions and version not in versions[name]:
            yield f"{name} {version}: installed, and locked is {', '.join(sorted(versions[name]))}"
        elif name not in versions and name not in _OF_EVERY_VENV:
            yield f"{name} {version}: installed, and in no lock"


def faults() -> list[str]:
    """All of them, a line each."""
    rules = policy()
    read_locks = {path: list(read(path.read_text(encoding="utf-8"))) for path in locks()}
    pinned = {path: [each for each in lock if isinstance(each, Locked)] for path, lock in read_locks.items()}
    ours = [each for path, lock in pinned.items() if path != TRITON for each in lock]
    everything = [*ours, *pinned[TRITON]]
    installed = {str(canonicalize_name(each.metadata["Name"])): each.version for each in distributions()}
    found = [f"{path.name}: {fault}" for path, lock in read_locks.items() for fault in unpinned(lock)]
    found += no_releases(everything)
    # Triton's venv is another.
    found += [*doubled(ours), *doubled(pinned[TRITON])]
    found += licence_faults(everything, rules)
    found += known_faults(everything, rules)
    found += strangers(installed, ours)
    return list(dict.fromkeys(found))


def main() -> int:
    """The exit status."""
    found = faults()
    for fault in found:
        sys.stderr.write(f"{fault}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
