"""Certificates on disk: made, checked, renewed as a whole, and each fault told with the file's name."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshkit.certificates import Certificate, CertificateUnusable, Watched, load
from meshkit.identity import SERVICES
from meshkit.settings import MeshSettings, Mtls
from weirctl.certificates import ensure

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def settings_of(home: Path, **mtls: object) -> MeshSettings:
    """A mesh with certificates in `home`."""
    return MeshSettings(home=home, transport="mtls", mtls=Mtls.model_validate(mtls))


@pytest.fixture
def settings(tmp_path: Path) -> MeshSettings:
    """With certificates made at NOW."""
    settings = settings_of(tmp_path)
    assert ensure(settings, NOW) == list(SERVICES)
    return settings


def leaf(settings: MeshSettings, service: str) -> x509.Certificate:
    """What lies there."""
    return x509.load_pem_x509_certificate((settings.home / "tls" / service / "tls.crt").read_bytes())


def names(certificate: x509.Certificate) -> list[str]:
    """Of a certificate."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in found]


def test_each_service_gets_its_own(settings: MeshSettings) -> None:
    """With its SPIFFE id; servers with their host name too, and the others may not pass for servers."""
    for service in SERVICES:
        certificate = leaf(settings, service)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        serves = service not in {"edge", "operator"}
        assert names(certificate) == [f"spiffe://weir.local/{service}", *([f"{service}.weir"] * serves)]
        assert (ExtendedKeyUsageOID.SERVER_AUTH in usage) == serves
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert certificate.not_valid_after_utc == NOW + DAY
        assert load(settings.certificate_files(service), NOW).ends == NOW + DAY
    ca = x509.load_pem_x509_certificate((settings.home / "tls" / "ca" / "ca.crt").read_bytes())
    assert ca.not_valid_after_utc == NOW + timedelta(days=3_650)


def test_nobody_else_may_read_them(settings: MeshSettings) -> None:
    """Folders 0700, files 0600, the CA's key in a folder of its own that no service is told of."""
    tls = settings.home / "tls"
    for path in [tls, *tls.rglob("*")]:
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert sorted(path.name for path in tls.iterdir()) == sorted((*SERVICES, "ca"))
    assert not list(tls.glob("[!c]*/**/ca.key"))


@pytest.mark.parametrize(("passed", "due"), [(0.6, False), (0.68, True), (1.5, True)])
def test_they_are_renewed_after_two_thirds_of_their_life(
    settings: MeshSettings, passed: float, *, due: bool
) -> None:
    """Not before, and not one of them alone; the CA stays."""
    before = {service: leaf(settings, service) for service in SERVICES}
    ca = (settings.home / "tls" / "ca" / "ca.crt").read_bytes()
    later = NOW + passed * DAY
    assert ensure(settings, later, starting=False) == (list(SERVICES) if due else [])
    for service in SERVICES:
        assert (leaf(settings, service) != before[service]) == due
        load(settings.certificate_files(service), later)
    assert (settings.home / "tls" / "ca" / "ca.crt").read_bytes() == ca


def test_the_certificate_before_is_kept_and_no_more(settings: MeshSettings) -> None:
    """Who is just reading it may end; a year of renewals leaves no heap."""
    for day in range(1, 6):
        ensure(settings, NOW + day * DAY)
    folder = settings.home / "tls" / "router"
    kept = [path for path in folder.glob("..*") if not path.is_symlink()]
    assert len(kept) == 2
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["ca.crt", "tls.crt", "tls.key"]


@pytest.mark.parametrize("file", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize("harm", ["missing", "garbage", "foreign"])
def test_what_is_harmed_is_made_anew(settings: MeshSettings, tmp_path: Path, file: str, harm: str) -> None:
    """A file that is missing, no PEM, or somebody else's: that service alone gets a new certificate."""
    folder = settings.home / "tls" / "ledger"
    content = b"garbage"
    if harm == "foreign":
        other = settings_of(tmp_path / "other")
        ensure(other, NOW)
        content = (other.home / "tls" / "ledger" / file).read_bytes()
    (folder / file).unlink()
    if harm != "missing":
        (folder / file).write_bytes(content)
    assert ensure(settings, NOW) == ["ledger"]
    load(settings.certificate_files("ledger"), NOW)


def test_another_trust_domain_is_another_certificate(settings: MeshSettings) -> None:
    """The CA stays, the names change."""
    moved = settings_of(settings.home, trust_domain="acme.example")
    assert ensure(moved, NOW) == list(SERVICES)
    assert names(leaf(moved, "auth"))[0] == "spiffe://acme.example/auth"


def test_a_ca_that_ends_soon_is_replaced_at_a_start_alone(settings: MeshSettings) -> None:
    """While services run they trust the one they know."""
    late = NOW + timedelta(days=3_640)
    before = (settings.home / "tls" / "ca" / "ca.crt").read_bytes()
    ensure(settings, late, starting=False)
    assert (settings.home / "tls" / "ca" / "ca.crt").read_bytes() == before
    assert leaf(settings, "router").not_valid_after_utc == late + DAY
    assert ensure(settings, late) == list(SERVICES)
    assert (settings.home / "tls" / "ca" / "ca.crt").read_bytes() != before


def test_what_others_make_is_only_looked_at(tmp_path: Path, settings: MeshSettings) -> None:
    """Nothing is written; what is missing or expired is a fault that names the file."""
    theirs = settings_of(tmp_path / "none", made_by="others", certificates=str(settings.home / "tls"))
    assert ensure(theirs, NOW) == []
    with pytest.raises(CertificateUnusable, match=r"router/tls\.crt: expired at 2026-11-23 12:00:00 UTC"):
        ensure(theirs, NOW + DAY)
    empty = settings_of(tmp_path / "none", made_by="others")
    with pytest.raises(CertificateUnusable, match=r"none/tls/router/tls\.crt: No such file or directory"):
        ensure(empty, NOW)
    assert not (tmp_path / "none").exists()


def test_each_fault_names_its_file(settings: MeshSettings) -> None:
    """So that whoever reads the log knows where to look."""
    files = settings.certificate_files("router")
    with pytest.raises(CertificateUnusable, match=r"router/tls\.crt: not valid before .* is the clock right"):
        load(files, NOW - DAY)
    foreign = settings_of(settings.home, trust_domain="acme.example").certificate_files("router")
    with pytest.raises(
        CertificateUnusable,
        match=r"tls\.crt: names spiffe://weir\.local/router, not spiffe://acme\.example/router",
    ):
        load(foreign, NOW)
    key = files.key.read_bytes()
    files.key.unlink()
    files.key.write_bytes(settings.certificate_files("auth").key.read_bytes())
    with pytest.raises(CertificateUnusable, match=r"tls\.key: not the key of .*tls\.crt"):
        load(files, NOW)
    files.key.write_bytes(b"-----BEGIN PRIVATE KEY-----")
    with pytest.raises(CertificateUnusable, match=r"tls\.key: not a key in PEM without a password"):
        load(files, NOW)
    files.key.write_bytes(key)
    files.authorities.unlink()
    with pytest.raises(CertificateUnusable, match=r"ca\.crt: No such file"):
        load(files, NOW)


def test_a_secret_never_shows(settings: MeshSettings) -> None:
    """Not even where a certificate ends up in a message."""
    assert "PRIVATE" not in repr(load(settings.certificate_files("router"), NOW))


class Clock:
    """Set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        """Now."""
        return self.now


def test_a_renewed_certificate_is_taken_and_an_unusable_one_is_not(settings: MeshSettings) -> None:
    """The same object while nothing changed; after a renewal the new one; with broken files the one before."""
    clock, told = Clock(), list[Certificate | CertificateUnusable]()
    files = settings.certificate_files("router")
    watched = Watched(files, told.append, clock)
    first = watched.current()
    assert watched.current() is first
    clock.now = NOW + DAY * 0.7
    ensure(settings, clock.now)
    second = watched.current()
    assert second is not first
    assert second.chain == files.certificate.read_bytes()
    (files.directory / "tls.key").unlink()
    assert watched.current() is second
    assert watched.current() is second
    assert [type(one) for one in told] == [Certificate, CertificateUnusable]
    ensure(settings, clock.now)
    assert watched.current().chain == files.certificate.read_bytes()
    assert len(told) == 3


def test_no_start_without_a_certificate(tmp_path: Path) -> None:
    """Whoever needs one and has none is told at once."""
    with pytest.raises(CertificateUnusable, match=r"tls/auth/tls\.crt: No such file"):
        Watched(settings_of(tmp_path).certificate_files("auth"))
