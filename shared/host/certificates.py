"""X.509 certificates for the lines between parties: a root for one purpose, and what it signs.

ECDSA on P-256, as every TLS library accepts it. Names and addresses stand in the subject
alternative names; the common name is for people.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from calyx.shared.errors import UsageError
from calyx.shared.host.address import without_brackets

# Clocks of devices differ; a certificate that is not valid yet is a common first fault.
_BACKDATED = timedelta(hours=1)
_PURPOSES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True)
class Credentials:
    """A certificate and its private key, PEM."""

    certificate: bytes
    private_key: bytes = field(repr=False)


def make_root(common_name: str, days: int) -> Credentials:
    """A root that may sign end certificates and nothing else.

    Raises:
        UsageError: a validity below one day.
    """
    _check_days(days)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_key_usage(is_root=True), True),
    ]
    return _credentials(_sign(name, name, key.public_key(), key, days, extensions), key)


def issue(
    root: Credentials,
    common_name: str,
    purpose: Literal["server", "client"],
    hosts: Sequence[str],
    days: int,
) -> Credentials:
    """A certificate signed by `root`.

    Args:
        root: as made by `make_root`.
        purpose: which end of a TLS connection it is for.
        hosts: names or addresses that its holder is reached under.
        days: how long it is valid.

    Raises:
        UsageError: no host for a server, or a validity below one day.
    """
    _check_days(days)
    if purpose == "server" and not hosts:
        raise UsageError(
            "a server's certificate needs at least one host name or address",
            hint="give one with --host",
        )
    key = ec.generate_private_key(ec.SECP256R1())
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(is_root=False), True),
        (x509.ExtendedKeyUsage([_PURPOSES[purpose]]), False),
    ]
    if hosts:
        extensions.append((x509.SubjectAlternativeName([_host(h) for h in hosts]), False))
    root_key = load_pem_private_key(root.private_key, None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(root.certificate).subject
    signed = _sign(_name(common_name), issuer, key.public_key(), root_key, days, extensions)
    return _credentials(signed, key)


def expiry(certificate: bytes) -> datetime:
    """Until when a PEM certificate is valid, UTC.

    Raises:
        ValueError: it is no certificate.
    """
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a PEM certificate, hex: for people to compare."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def _credentials(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Credentials:
    return Credentials(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    root_key: ec.EllipticCurvePrivateKey,
    days: int,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False
        )
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(root_key, hashes.SHA256())


def _key_usage(is_root: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_root,
        key_cert_sign=is_root,
        crl_sign=is_root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(without_brackets(host)))
    except ValueError:
        return x509.DNSName(host)


def _check_days(days: int) -> None:
    if days < 1:
        raise UsageError("a certificate must be valid for at least one day")
