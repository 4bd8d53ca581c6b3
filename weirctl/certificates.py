"""The services' certificates on disk: made at the first start, renewed long before they end, replaced as a whole.

Each service's folder looks like a mounted Kubernetes secret: `tls.crt`, `tls.key` and `ca.crt` are links into `..data`,
itself a link to a folder that is never changed. Renewal replaces that one link, so no reader meets half of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from meshkit.certificates import CertificateUnusable, load
from meshkit.identity import SERVICES, CertificateFiles
from meshkit.settings import MeshSettings
from weirctl import authority
from weirctl.authority import Authority

_DATA: Final = "..data"
_LOOK_EVERY_S: Final = 60.0
_LOOKS_PER_LIFE: Final = 20
_CA_AT_LEAST: Final = timedelta(days=30)
"""A CA with less time left than this is replaced at the next start."""


def ensure(settings: MeshSettings, now: datetime, *, starting: bool = True) -> list[str]:
    """Makes what is missing, unusable, or two thirds through its life; returns the services that got a new one.

    Where others make the certificates, they are only looked at. At a start, a CA that ends soon is replaced.
    Raises CertificateUnusable and OSError.
    """
    files: dict[str, CertificateFiles] = {
        service: settings.certificate_files(service) for service in SERVICES
    }
    if settings.mtls.made_by == "others":
        for one in files.values():
            load(one, now)
        return []
    ca = _authority(files["router"].directory.parent / "ca", now, starting=starting)
    life = timedelta(hours=settings.mtls.leaf_h)
    due: list[str] = [service for service, one in files.items() if _due(one, ca, now)]
    for service in due:
        certificate, key = ca.issue(service, settings.mtls.trust_domain, life, now)
        _replace(
            files[service].directory, {"tls.crt": certificate, "tls.key": key, "ca.crt": ca.certificate_pem}
        )
    return due


async def keep_renewed(settings: MeshSettings, report: Callable[[str], None]) -> None:
    """Renews until cancelled. What goes wrong is reported and tried again: a third of each life is left for it."""
    pause_s = min(_LOOK_EVERY_S, settings.mtls.leaf_h * 3_600 / _LOOKS_PER_LIFE)
    told = ""
    while True:
        await asyncio.sleep(pause_s)
        try:
            renewed = await asyncio.to_thread(ensure, settings, datetime.now(UTC), starting=False)
        except (CertificateUnusable, OSError) as error:
            if told != (told := str(error)):
                report(f"certificates are not renewed: {error}")
        else:
            told = ""
            if renewed:
                report(f"certificates renewed: {', '.join(renewed)}")


def _authority(folder: Path, now: datetime, *, starting: bool) -> Authority:
    """The CA that is kept, or a new one."""
    with contextlib.suppress(OSError, ValueError):
        kept = authority.restore((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())
        left = kept.certificate.not_valid_after_utc - now
        if left > (_CA_AT_LEAST if starting else timedelta()):
            return kept
    new = authority.found(now)
    _replace(folder, {"ca.crt": new.certificate_pem, "ca.key": new.key_pem})
    return new


def _due(files: CertificateFiles, ca: Authority, now: datetime) -> bool:
    try:
        own = load(files, now)
        x509.load_pem_x509_certificate(own.chain).verify_directly_issued_by(ca.certificate)
    except (CertificateUnusable, ValueError, TypeError, InvalidSignature):
        return True
    return own.authorities != ca.certificate_pem or now >= own.begins + (own.ends - own.begins) * 2 / 3


def _replace(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Puts files in the place of those before them, all at once; for this user alone."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    before = (folder / _DATA).readlink().name if (folder / _DATA).is_symlink() else None
    name = f"..{secrets.token_hex(8)}"
    (folder / name).mkdir(mode=0o700)
    for file, content in contents.items():
        _write(folder / name / file, content)
    _link(folder / _DATA, name)
    for file in contents:
        if not (folder / file).is_symlink():
            _link(folder / file, f"{_DATA}/{file}")
    for old in folder.glob("..*"):
        # Who has just begun to read the one before may end.
        if old.name not in {name, before} and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _link(path: Path, target: str) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(path)
