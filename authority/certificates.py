"""Certificates for the line between the aggregation server and the key authority.

`make` creates an authority of certificates for this one purpose, a certificate for the key
authority and one for the server; each end accepts only the other. ECDSA on P-256.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.errors import UsageError

# Clocks of devices differ; a certificate that is not valid yet is a common first fault.
_BACKDATED = timedelta(hours=1)


@dataclass(frozen=True)
class Credentials:
    """A certificate and its private key, PEM."""

    certificate: bytes
    private_key: bytes = field(repr=False)


@dataclass(frozen=True)
class CertificateSet:
    """Everything for one line.

    Attributes:
        root: certificate that both ends trust, PEM; its private key is not kept.
        authority: for the key authority.
        server: for the aggregation server.
    """

    root: bytes
    authority: Credentials
    server: Credentials


def make(hosts: Sequence[str], days: int) -> CertificateSet:
    """New certificates.

    Args:
        hosts: names or addresses under which the server reaches the authority.
        days: how long they are valid.

    Raises:
        UsageError: no host, or a validity below one day.
    """
    if not hosts or days < 1:
        raise UsageError("a certificate needs at least one host name and one day of validity")
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Calyx key authority root")
    constraint = (x509.BasicConstraints(ca=True, path_length=0), True)
    usage = (_key_usage(is_root=True), True)
    root = _sign(name, name, key.public_key(), key, days, [constraint, usage])
    return CertificateSet(
        root.public_bytes(Encoding.PEM),
        _end("Calyx key authority", ExtendedKeyUsageOID.SERVER_AUTH, hosts, key, days),
        _end("Calyx aggregation server", ExtendedKeyUsageOID.CLIENT_AUTH, (), key, days),
    )


def _end(
    common_name: str,
    purpose: x509.ObjectIdentifier,
    hosts: Sequence[str],
    root_key: ec.EllipticCurvePrivateKey,
    days: int,
) -> Credentials:
    key = ec.generate_private_key(ec.SECP256R1())
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(is_root=False), True),
        (x509.ExtendedKeyUsage([purpose]), False),
    ]
    if hosts:
        extensions.append((x509.SubjectAlternativeName([_host(h) for h in hosts]), False))
    issuer = _name("Calyx key authority root")
    certificate = _sign(_name(common_name), issuer, key.public_key(), root_key, days, extensions)
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
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
