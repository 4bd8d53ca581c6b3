"""An authority of one's own: makes a CA and the services' certificates. Nothing here touches a file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshkit.identity import dns_name, spiffe_id

CA_LIFE: Final = timedelta(days=3_650)
_BACKDATED: Final = timedelta(minutes=5)
"""A clock that was set back a little must not make a new certificate invalid. Of a short life, at most a tenth."""
_ONLY_CALL: Final = frozenset({"edge", "operator"})
"""Their certificates cannot pass for a server's."""


@dataclass(frozen=True)
class Authority:
    """A CA's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """What the services trust."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """What nobody else may have."""
        return _pem(self.key)

    def issue(self, service: str, trust_domain: str, life: timedelta, now: datetime) -> tuple[bytes, bytes]:
        """A new certificate for a service and its key, in PEM. It ends with the CA at the latest."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(spiffe_id(trust_domain, service))]
        if service not in _ONLY_CALL:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
            names.append(x509.DNSName(dns_name(service)))
        builder = (
            _builder(key, self.certificate.subject, now - min(_BACKDATED, life / 10))
            .subject_name(x509.Name([]))
            .not_valid_after(min(now + life, self.certificate.not_valid_after_utc))
            # Critical, because the subject is empty.
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(of_ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM), _pem(key)


def found(now: datetime) -> Authority:
    """A new CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Weir on this machine")])
    builder = (
        _builder(key, name, now - _BACKDATED)
        .subject_name(name)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(of_ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Authority(builder.sign(key, SHA256()), key)


def restore(certificate: bytes, key: bytes) -> Authority:
    """A CA from its PEM texts. Raises ValueError."""
    private = load_pem_private_key(key, None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise ValueError("not a key on an elliptic curve")  # noqa: TRY004 - what the file holds is wrong, no argument
    return Authority(x509.load_pem_x509_certificate(certificate), private)


def _builder(key: ec.EllipticCurvePrivateKey, issuer: x509.Name, begins: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
    )


def _usage(*, of_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not of_ca,
        key_cert_sign=of_ca,
        crl_sign=of_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
