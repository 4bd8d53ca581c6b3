"""A service's certificate as it lies on disk: loaded, checked, and taken anew when it was renewed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from meshkit.identity import CertificateFiles

_Seen = tuple[tuple[int, int], ...]


class CertificateUnusable(RuntimeError):
    """A certificate is missing, expired, or not what it should be; the text names the file."""


@dataclass(frozen=True)
class Certificate:
    """What proves a service to others, and others to it. PEM."""

    chain: bytes
    key: bytes
    authorities: bytes
    begins: datetime
    ends: datetime

    def __repr__(self) -> str:
        return f"Certificate({self.begins:%c} to {self.ends:%c})"


def load(files: CertificateFiles, now: datetime) -> Certificate:
    """Reads and checks the files. Raises CertificateUnusable."""
    chain, key, authorities = map(_read, (files.certificate, files.key, files.authorities))
    leaf = _certificate(files.certificate, chain)
    _certificate(files.authorities, authorities)
    _check_pair(files, leaf, key)
    _check_id(files, leaf)
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now >= ends:
        raise CertificateUnusable(f"{files.certificate}: expired at {ends:%Y-%m-%d %H:%M:%S} UTC")
    if now < begins:
        raise CertificateUnusable(
            f"{files.certificate}: not valid before {begins:%Y-%m-%d %H:%M:%S} UTC; is the clock right?"
        )
    return Certificate(chain, key, authorities, begins, ends)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateUnusable(f"{path}: {error.strerror}") from error


def _certificate(path: Path, text: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(text)[0]
    except ValueError as error:
        raise CertificateUnusable(f"{path}: not a certificate in PEM") from error


def _check_pair(files: CertificateFiles, leaf: x509.Certificate, key: bytes) -> None:
    try:
        public = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateUnusable(f"{files.key}: not a key in PEM without a password") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if public.public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise CertificateUnusable(f"{files.key}: not the key of {files.certificate}")


def _check_id(files: CertificateFiles, leaf: x509.Certificate) -> None:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        found = []
    if found != [files.spiffe_id]:
        shown = ", ".join(found) or "nobody"
        raise CertificateUnusable(f"{files.certificate}: names {shown}, not {files.spiffe_id}")


def _now() -> datetime:
    return datetime.now(UTC)


class Watched:
    """The newest usable certificate of one service. Safe to ask from any thread.

    Args:
        files: where it lies.
        changed: told of each renewal, and of files that cannot be used; then the certificate before stays in use.
    """

    def __init__(
        self,
        files: CertificateFiles,
        changed: Callable[[Certificate | CertificateUnusable], None] = lambda _: None,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._files = files
        self._changed = changed
        self._now = now
        self._lock = Lock()
        self._seen = self._look()
        self._certificate = load(files, now())

    def current(self) -> Certificate:
        """The certificate to use for the next connection; the same object until it was renewed. Costs three stats."""
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                self._take(seen)
            return self._certificate

    def _take(self, seen: _Seen) -> None:
        try:
            # Files that changed while they were read are looked at again the next time.
            self._certificate = load(self._files, self._now())
        except CertificateUnusable as error:
            self._seen = seen
            self._changed(error)
        else:
            self._seen = seen
            self._changed(self._certificate)

    def _look(self) -> _Seen:
        return tuple(map(_stamp, (self._files.certificate, self._files.key, self._files.authorities)))


def _stamp(path: Path) -> tuple[int, int]:
    """Changes when the file does; zeros where there is none."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns
