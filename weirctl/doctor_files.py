"""Whether secrets on disk are for their owner alone, and certificates are good."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from meshkit.certificates import CertificateUnusable, load
from meshkit.identity import SERVICES, Peers
from meshkit.settings import MeshSettings
from weirctl.doctor_finding import Finding, fault, ok, warning

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_RENEWED_BY = 2 / 3
"""Of a certificate's life: from then on it is overdue (weirctl.certificates renews then)."""
_WHAT = "certificates"


@dataclass(frozen=True)
class SecretFile:
    """A file that its owner alone should read."""

    path: Path
    mode: int | None
    """Its permissions; None where there is no such file."""


@dataclass(frozen=True)
class CertificateFacts:
    """One service's certificate."""

    service: str
    directory: Path
    present: bool
    fault: str = ""
    """Why it cannot be used."""
    begins: datetime | None = None
    ends: datetime | None = None


def secret_file(path: Path) -> SecretFile:
    """What is at `path` now, a link followed."""
    try:
        return SecretFile(path, stat.S_IMODE(path.stat().st_mode))
    except OSError:
        return SecretFile(path, None)


def secret_files(what: str, files: Sequence[SecretFile]) -> list[Finding]:
    """One line for each that others may read; one line if there is none."""
    open_ones = [file for file in files if file.mode is not None and file.mode & _OTHERS]
    if open_ones:
        return [
            fault(
                what,
                f"{file.path} has mode {file.mode:04o}: other users of this machine may read it",
                f"chmod 600 {file.path}, and rotate what is in it",
            )
            for file in open_ones
        ]
    there = sum(file.mode is not None for file in files)
    return [
        ok(what, f"{there} files, for their owner alone" if there else "none yet; they are made at the start")
    ]


def certificates_of(settings: MeshSettings, now: datetime) -> list[CertificateFacts]:
    """Every service's, as they lie there now."""
    return [_facts(settings, service, now) for service in SERVICES]


def certificate_keys(settings: MeshSettings) -> list[SecretFile]:
    """The private keys, the authority's among them."""
    files = [settings.certificate_files(service) for service in SERVICES]
    authority = files[0].directory.parent / "ca" / "ca.key"
    return [*(secret_file(one.key) for one in files), secret_file(authority)]


def certificates(
    facts: Iterable[CertificateFacts], now: datetime, *, made_by_us: bool, up: bool
) -> list[Finding]:
    """One line for each that is missing, cannot be used or was not renewed; one line if all are well.

    Args:
        facts: of every service.
        now: the present.
        made_by_us: whether `weir up` makes and renews them: then what is wrong while it is down mends itself.
        up: whether the mesh runs.
    """
    known = list(facts)
    if made_by_us and not any(one.present for one in known):
        return [ok(_WHAT, "none yet; `weir up` makes them")]
    found = [finding for one in known if (finding := _certificate(one, now)) is not None]
    if made_by_us and not up:
        return [
            ok(
                _WHAT,
                f"{len(found)} are missing or end soon; `weir up` renews them" if found else _all_well(known),
            )
        ]
    return found or [ok(_WHAT, _all_well(known))]


def _certificate(one: CertificateFacts, now: datetime) -> Finding | None:
    if one.fault or one.begins is None or one.ends is None:
        return fault(_WHAT, f"{one.service}: {one.fault or 'missing'}", _renewal(one))
    if now >= one.begins + (one.ends - one.begins) * _RENEWED_BY:
        text = f"{one.service}: ends at {one.ends:%Y-%m-%d %H:%M:%S} UTC and was not renewed"
        return warning(_WHAT, text, _renewal(one))
    return None


def _renewal(one: CertificateFacts) -> str:
    return f"see log/weir.log for why, or renew {one.directory} yourself"


def _all_well(known: Sequence[CertificateFacts]) -> str:
    first = min((one.ends for one in known if one.ends is not None), default=None)
    return f"{len(known)} are good" + (
        "" if first is None else f", the first ends {first:%Y-%m-%d %H:%M} UTC"
    )


def _facts(settings: MeshSettings, service: Peers, now: datetime) -> CertificateFacts:
    files = settings.certificate_files(service)
    present = files.certificate.exists()
    try:
        loaded = load(files, now)
    except CertificateUnusable as error:
        return CertificateFacts(service, files.directory, present, fault=str(error))
    return CertificateFacts(service, files.directory, present, begins=loaded.begins, ends=loaded.ends)
